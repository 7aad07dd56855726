"""Reading a reply in words: folded text, marks for labels, rules. extract.py decides by them."""
