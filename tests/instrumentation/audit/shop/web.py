from contextlib import suppress
import logging

from fastapi import APIRouter, BackgroundTasks, FastAPI

from .orders import router as orders

log = logging.getLogger(__name__)
app = FastAPI()
api = APIRouter(prefix="/v1")
cache = {}


@app.get("/")
def home():
    return cache.get("/home")


@app.websocket("/live")
async def live(socket):
    await socket.accept()


@api.api_route("/ping", methods=["GET", "post"])
def ping(tasks: BackgroundTasks):
    tasks.add_task(tidy, 1)


@cache.get("/no-route")
def not_a_route():
    with suppress(OSError):
        open("x")


def tidy(number):
    try:
        return cache[number]
    except KeyError:
        log.exception("no %s", number)
    except ValueError:
        raise
    except OSError as error:
        raise RuntimeError from error
    except TypeError:
        pass


app.include_router(api, prefix="/api")
app.include_router(orders)
