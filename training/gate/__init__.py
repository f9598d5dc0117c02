"""What a candidate must show before it may become champion."""
