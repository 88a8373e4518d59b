"""Files that hold a whole collection: web archives, wiki dumps, JSON arrays; and the text in their markup."""
