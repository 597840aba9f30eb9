"""Pictures of what happens inside a detector, drawn from arrays alone. Imports no torch.

scene.py      Scene: one image and what a detector saw and did in it; to a small file and back
sheet.py      panels in a grid -> Picture: PNG bytes with a text that says what is seen
overlay.py    arrays over an image: cells cleared or veiled, attention as colour
tokens.py     kept tokens by level and by layer; the decoder's attention against them
queries.py    sampling points; the path of queries from layer to layer
objects.py    detections against ground truth
gallery.py    all pictures of one image, and one panel of several detectors side by side
page.py       pictures as one HTML file

`detrbench.measure.pictures` takes scenes from a detector; reports and `detrbench visualize` show them.
"""
