import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from fastapi import APIRouter

from engram.instrumentation import record_decision, remember, workflow

router = APIRouter(prefix="/orders")
pool = ThreadPoolExecutor()


@router.post("/{order_id:int}/refund")
async def refund(order_id: int):
    asyncio.create_task(notify(order_id))
    threading.Thread(target=index, args=(order_id,)).start()
    pool.submit(index, order_id)
    return approve_refund(order_id)


async def notify(order_id): ...


@workflow("index")
def index(order_id): ...


def approve_refund(order):
    if order > 10:
        record_decision("refund", "no")
        return "no"
    return "yes"


def choose_carrier(order):
    return "slow" if order else "fast"


def select_rows(order):
    return order.rows


def select_plan(order):
    if order:
        return "big"
    return "small"


def load(order):
    try:
        return order.load()
    except LookupError:
        note("missing")
    except OSError as error:
        order.failed(error)
    except Exception:
        log = __import__("logging").getLogger()
        log.warning("odd")


def note(text):
    remember("note", text)


def default(order):
    try:
        return order["x"]
    except KeyError:
        return None
