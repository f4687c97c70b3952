"""Transformers that map a context of images and responses to the weights of linear encoders."""

from braincorl.models.attention import AttentionConfig, VoxelAttention
from braincorl.models.engine import InferenceEngine
from braincorl.models.reference import ReferenceConfig, ReferenceTransformer

__all__ = ["AttentionConfig", "InferenceEngine", "ReferenceConfig", "ReferenceTransformer", "VoxelAttention"]
