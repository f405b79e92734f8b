"""People judge pairs: a web page on this machine, and the labels that it writes."""
