"""Search embeddings of your own, with an index that is told how much of the truth it must find.

    python examples/own_embeddings.py

The index needs FAISS: pip install "mmalign[cpu]". Without an index, every search is exact.
"""

import shutil

import numpy as np

from mmalign import Collection

ITEMS, DIM, KINDS = 20_000, 64, 200


def main() -> None:
    # In place of what your own model gives: vectors around some centres, of length 1.
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(KINDS, DIM))

    def some(count: int) -> np.ndarray:
        rows = centres[rng.integers(KINDS, size=count)] + 0.7 * rng.normal(size=(count, DIM))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    vectors, tuning, queries = some(ITEMS), some(500), some(500)
    prices = rng.integers(1, 100, ITEMS)

    shutil.rmtree("things.mm", ignore_errors=True)
    things = Collection.create("things.mm", encoder=None, dim=DIM)
    things.add_embeddings(range(ITEMS), vectors, metadata={"price": prices.tolist()})

    # Give it queries as they will be asked: its recall is measured with them, beside the exact answer. Any recipe of
    # `mmalign recipes`, or any FAISS factory string such as "IVF256,Flat", will do.
    things.build_index("hnsw", min_recall=0.95, queries=tuning, progress=False)

    # Is it kept? These queries are others, and NumPy knows the truth.
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    for target in (0.95, 0.99):
        found = things.search(queries, k=10, min_recall=target)
        hits = [{int(hit.id) for hit in result} & set(row) for result, row in zip(found, truth.tolist(), strict=True)]
        recall = sum(map(len, hits)) / truth.size
        print(f"asked for {target:.2f}: found {recall:.4f} of the true neighbours (effort {found[0].effort})")

    # A filter keeps the promise, too; where no effort does, the search is exact and says so.
    cheap = things.search(queries[0], k=5, where="price < 20")
    print(f"cheaper than 20: {[(int(hit.id), hit.metadata['price']) for hit in cheap]}, exact: {cheap.exact}")


if __name__ == "__main__":
    main()
