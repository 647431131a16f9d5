"""The recorder and the player of the App Server's WebSocket, under the path of earlier versions."""

from letta_adapters.testing.recording.websocket import WebSocketPlayer, WebSocketRecorder

__all__ = ["WebSocketPlayer", "WebSocketRecorder"]
