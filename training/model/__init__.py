"""The seam between training and serving: picture to array, model folder, classifier, pin, signature."""
