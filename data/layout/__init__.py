"""Which class and which split every picture of a folder belongs to, by whatever layout people have."""
