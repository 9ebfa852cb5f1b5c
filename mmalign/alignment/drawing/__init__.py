"""Pictures of an alignment: boxes, labels, legend and the sentence in colours."""
