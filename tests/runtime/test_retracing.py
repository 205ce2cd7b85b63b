"""TensorFlow's warning of retracing stays out of jobs that train many networks."""

import logging
import threading

from tfnas.runtime.retracing import retracing_expected

WARNING = "5 out of the last 13 calls to <function %s> triggered tf.function retracing. Tracing is"
OF_KERAS = "TensorFlowTrainer._make_function.<locals>.multi_step_on_iterator at 0x7fbc"


def test_only_the_warning_of_keras_training_step_is_hidden(caplog):
    logger = logging.getLogger("tensorflow")
    with retracing_expected():
        logger.warning(WARNING, OF_KERAS)
        logger.warning(WARNING, "my_step at 0x7fbc")
        logger.warning("another one of TensorFlowTrainer")
        other = threading.Thread(target=logger.warning, args=(WARNING, f"in a thread {OF_KERAS}"))
        other.start()
        other.join()
    logger.warning(WARNING, f"later {OF_KERAS}")
    shown = ("my_step", "another one", "in a thread", "later")
    assert len(caplog.messages) == len(shown)
    for message, text in zip(caplog.messages, shown, strict=True):
        assert text in message
