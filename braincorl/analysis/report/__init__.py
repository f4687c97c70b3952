"""The report of a fit, one page that opens anywhere."""
