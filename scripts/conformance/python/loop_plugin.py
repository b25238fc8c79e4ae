# The fixture "loop" that aio-pika's tests have from a plug-in of aiomisc.
import pytest
@pytest.fixture
def loop(event_loop):
    return event_loop
