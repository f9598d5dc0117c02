"""Whether labels are right: what people corrected, and what a model that did not learn from them doubts."""
