"""Passages of a memory for LangChain: FoveaRetriever(memory=fovea.Memory.open("notes"))."""
from typing import Any

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever


class FoveaRetriever(BaseRetriever):
    memory: Any
    by: str = "both"  # "attention", "bm25" or "both"
    limit: int = 4

    def _get_relevant_documents(self, query, *, run_manager):
        return [Document(page_content=p.text, metadata={"source": p.source, "title": p.title,
                                                        "start": p.start, "end": p.end})
                for p in self.memory.search(query, by=self.by, limit=self.limit)]
