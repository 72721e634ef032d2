import networkx
from langgraph.func import entrypoint, task
from langgraph.graph import StateGraph

from . import llm
from .llm import client as shared


def plan(state):
    return shared.embeddings.create(model=llm.MODEL, input="x")


def build():
    return StateGraph(dict)


graph = build()
graph.add_node("act", lambda state: state).add_node(plan)
graph.add_edge("act", "plan")
other = networkx.Graph()
other.add_node("not a node")


@task
def step(x): ...


@entrypoint()
def flow(x): ...
