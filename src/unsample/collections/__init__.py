"""Collections: a verb done to thousands of pictures, resumably, by several workers, its results in shards.

`sources` says what a collection is, `jobs` what is asked, `work` does one batch, an engine of the benchmark
(`bench.local`, `bench.ray_engine`) does many, `run` drives them and is the only writer of the ledger (`bench.ledger`);
`shards` puts what they made together, `index` lists it, and `opened` reads it. `api` is the door of Python.
"""
