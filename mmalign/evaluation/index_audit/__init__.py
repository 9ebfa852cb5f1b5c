"""The recall of the indexes that people have: FAISS and hnswlib files, LanceDB, pgvector, Milvus and Qdrant."""
