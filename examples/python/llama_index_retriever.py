"""Passages of a memory for LlamaIndex: FoveaRetriever(fovea.Memory.open("notes"))."""
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode


class FoveaRetriever(BaseRetriever):
    def __init__(self, memory, by="both", limit=4):
        self.search = lambda query: memory.search(query, by=by, limit=limit)
        super().__init__()

    def _retrieve(self, query_bundle):
        return [NodeWithScore(node=TextNode(text=p.text, metadata={"source": p.source, "title": p.title,
                                                                   "start": p.start, "end": p.end}),
                              score=p.score) for p in self.search(query_bundle.query_str)]
