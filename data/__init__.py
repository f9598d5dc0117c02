"""From a source of pictures to checked, split pictures with a manifest; see data/README.md."""
