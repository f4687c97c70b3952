"""Networks that map a context of images and responses to the weights of linear encoders."""

from braincorl.models.engine import InferenceEngine
from braincorl.models.native import NativeConfig, NativeTransformer
from braincorl.models.reference import ReferenceConfig, ReferenceTransformer

__all__ = ["InferenceEngine", "NativeConfig", "NativeTransformer", "ReferenceConfig", "ReferenceTransformer"]
