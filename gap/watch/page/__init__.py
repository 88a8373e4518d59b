"""The page in the browser: its server, its cards, its charts."""
