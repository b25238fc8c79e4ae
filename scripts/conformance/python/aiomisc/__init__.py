# The parts of aiomisc that the tests of aio-pika use. Debian has no package of aiomisc.
import asyncio, functools, inspect
def awaitable(func):
    @functools.wraps(func)
    async def run(*a, **k):
        r = func(*a, **k)
        return await r if inspect.isawaitable(r) else r
    return run
def timeout(seconds):
    def wrap(func):
        @functools.wraps(func)
        async def run(*a, **k):
            return await asyncio.wait_for(func(*a, **k), seconds)
        return run
    return wrap
