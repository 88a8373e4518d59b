"""Files that hold a whole collection: archives, web archives, wiki dumps, JSON arrays; and the text in their markup."""
