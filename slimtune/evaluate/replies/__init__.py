"""Reading a reply in words: folded text, marks for labels, rules. evaluate/extract.py decides by them."""
