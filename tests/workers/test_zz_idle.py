import asyncio, os, sys, signal
from tests.workers.test_worker import environment, says
from tests.workers.world import World
async def test_idle(world: World) -> None:
    p = await asyncio.create_subprocess_exec(sys.executable, "/tmp/w/idle.py", env={**environment(world.settings), "PYTHONPATH": "/work/main"}, stderr=asyncio.subprocess.PIPE)
    await says(p, "at work")
    p.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(5): await p.wait()
    except TimeoutError:
        p.send_signal(signal.SIGUSR1)
        await asyncio.sleep(1)
        p.kill()
    print((await p.communicate())[1].decode())
    print(p.returncode)
