"""A public Kafka client, librdkafka, as a process: it joins other namespaces than the tests.

Standard input is JSON: ``settings`` of librdkafka, ``topic``, and ``write`` (messages) or ``read`` (True), the latter
with a ``group`` that remembers how far it came. Standard output is JSON: ``messages`` and ``errors``. The first error
of a connection ends it.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

LIMIT_SECONDS = 25.0


def write(settings: dict[str, Any], topic: str, messages: list[str], errors: list[str]) -> None:
    def delivered(error: KafkaError | None, _: Message) -> None:
        if error:
            errors.append(error.str())

    producer = Producer(settings)
    for message in messages:
        producer.produce(topic, message, on_delivery=delivered)
    deadline = time.monotonic() + LIMIT_SECONDS
    while len(producer) and not errors:
        if time.monotonic() > deadline:
            errors.append("no answer")
        producer.poll(0.1)
    producer.purge()


def read(settings: dict[str, Any], topic: str, group: str | None, errors: list[str]) -> list[str]:
    """Everything up to the end of the topic, which has one partition."""
    more = {"group.id": group or settings.get("sasl.username", "none"), "auto.offset.reset": "earliest"}
    consumer = Consumer({**settings, **more, "enable.partition.eof": True, "enable.auto.commit": group is not None})
    found: list[str] = []
    try:
        _look_up(consumer, topic, errors)
        if group:
            consumer.subscribe([topic])
        else:
            consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        deadline = time.monotonic() + LIMIT_SECONDS
        while not errors:
            message = consumer.poll(0.1)
            if message is None:
                if time.monotonic() > deadline:
                    errors.append("no answer")
            elif message.error() is None:
                found.append(message.value().decode())
            elif message.error().code() == KafkaError._PARTITION_EOF:
                break
            else:
                errors.append(message.error().str())
    finally:
        consumer.close()
    return found


def _look_up(consumer: Consumer, topic: str, errors: list[str]) -> None:
    """Asked by name, a topic that may not be seen is an error; without that the client waits for it to appear."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not errors:
        try:
            refusal = consumer.list_topics(topic, timeout=1).topics[topic].error
        except KafkaException as exc:
            consumer.poll(0)  # tells errors of the connection
            if time.monotonic() > deadline:
                errors.append(str(exc))
        else:
            errors += [refusal.str()] if refusal else []
            return


def main() -> None:
    request = json.load(sys.stdin)
    errors: list[str] = []
    settings = {**request["settings"], "error_cb": lambda error: errors.append(error.str()), "log_level": 0}
    messages: list[str] = []
    if "write" in request:
        write(settings, request["topic"], request["write"], errors)
    else:
        messages = read(settings, request["topic"], request.get("group"), errors)
    json.dump({"messages": messages, "errors": errors}, sys.stdout)


main()
