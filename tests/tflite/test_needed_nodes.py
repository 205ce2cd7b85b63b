"""The nodes of a graph that its outputs need, in the order of TensorFlow's own `prune`."""

import tensorflow as tf

from tfnas.tflite.needed_nodes import keep_needed


def two_branches():
    """Two branches, one of which also waits for the other, and a node that nothing reads."""

    def compute(x, y):
        tf.nn.softmax(x, name="unread")
        left = tf.nn.relu(tf.matmul(x, tf.ones((3, 3)), name="product"), name="left")
        with tf.control_dependencies([left.op]):
            right = tf.exp(y, name="right")
        return tf.add(left, tf.multiply(right, 2.0, name="twice"), name="sum"), left

    specs = [tf.TensorSpec((None, 3), tf.float32, name=name) for name in "xy"]
    return tf.compat.v1.wrap_function(compute, specs)


def test_nodes_stand_in_the_order_of_tensorflow():
    function = two_branches()
    inputs, outputs = function.inputs[:2], function.outputs
    pruned = function.prune(inputs, outputs).graph.as_graph_def()
    theirs = [node.name for node in pruned.node if node.op != "Placeholder"]
    graph = function.graph.as_graph_def()
    keep_needed(graph, [t.name for t in inputs], [t.name for t in outputs])
    assert [node.name for node in graph.node] == theirs
    assert {"left", "right", "twice", "sum"} < set(theirs)
    assert "unread" not in theirs
