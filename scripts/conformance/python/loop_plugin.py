# The fixture "loop" of aio-pika's tests. A plug-in of aiomisc normally provides it.
import pytest
@pytest.fixture
def loop(event_loop):
    return event_loop
