"""A picture file: opened and bounded (header), its values as 8-bit RGB (values), its colours as sRGB (colour)."""
