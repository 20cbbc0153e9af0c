"""From raw files to padded batches: readers, codecs, the token store, the plan of batches."""
