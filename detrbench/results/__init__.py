"""What a run leaves behind. Imports no torch.

records.py   what each figure carries
folder.py    the files of one cell, each written whole or not at all
store.py     a results folder, read back: cells, and all figures as a table
address.py   a cell by the words that a user types: SUITE:ID@SCALE
"""
