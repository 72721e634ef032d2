import functools

import anthropic as claude
import httpx
import litellm
from langchain_openai import ChatOpenAI as Chat
from openai import AsyncOpenAI, OpenAI

URL = "https://api.openai.com/v1"
MODEL = "gpt-5"
client = OpenAI()


@functools.cache
def messages():
    return claude.Anthropic().messages


class Agent:
    def __init__(self, other: AsyncOpenAI):
        self.other = other
        self.chat = Chat(model=MODEL).bind_tools([])

    async def ask(self, text):
        await self.other.responses.create(model=MODEL, input=text)
        return self.chat.invoke(text)


def ask(text, db):
    db.chat.completions.create(text)
    client.chat.completions.create(model=MODEL, messages=[text])
    with messages().stream(model="claude-5") as stream:
        stream.get_final_message()
    httpx.post(f"{URL}/chat/completions", json={})
    httpx.post("https://example.com/chat/completions", json={})
    litellm.completion(model="x/y")
    client.images.generate(prompt="a cat")
    client.models.list()
