"""Arrays in: images, tables, biased and reference splits, missing-data mechanisms, minibatches."""
