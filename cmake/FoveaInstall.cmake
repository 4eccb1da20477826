# Filled in with the installed package (see docs).
