"""Images, tables, toy densities, biased and reference splits, minibatches."""
