"""Maps as pictures: slices, glass brain, cortical surface, flat map."""
