"""Vision transformer on image patches."""

from __future__ import annotations

from torch import Tensor, nn

from tesserl_nn_components.pixels import (
    PixelRange,
    as_image_batch,
    check_image_shape,
    check_pixel_range,
    scale_pixels,
)
from tesserl_nn_components.transformer import NormPlacement, Pooling, TokenEncoder, token_table


class PatchViT(nn.Module):
    """Patch embedding with learned positions, transformer layers, pooling: an image encoder.

    Dosovitskiy et al. 2021 (arXiv:2010.11929).

    Args:
        image_shape: (channels, height, width).
        patch_size: side of a patch in pixels; divides height and width.
        d_model: token width ``d``; equals ``out_features``.
        num_layers: transformer layers; 0 pools the patch embeddings.
        num_heads: attention heads; divides ``d_model``.
        pooling: ``"mean"``, ``"cls"`` or ``"attention"``, see :class:`TokenEncoder`.
        feedforward_ratio: hidden width of the feed-forward networks divided by ``d_model``.
        dropout: probability in [0, 1].
        norm: LayerNorm before (``"pre"``) or after (``"post"``) each branch.
        pixel_range: scaling of uint8 input: ``"unit"`` to [0, 1], ``"symmetric"`` to [-1, 1], ``"centered"`` to
            ``(x - 128) / 128``.

    Raises:
        ValueError: if ``patch_size`` does not divide the image, or an argument is out of its range.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        patch_size: int,
        d_model: int,
        num_layers: int,
        num_heads: int,
        pooling: Pooling = "mean",
        feedforward_ratio: float = 4.0,
        dropout: float = 0.0,
        norm: NormPlacement = "pre",
        pixel_range: PixelRange = "unit",
    ) -> None:
        super().__init__()
        check_pixel_range(pixel_range)
        self.image_shape = check_image_shape(image_shape)
        channels, height, width = self.image_shape
        if patch_size < 1 or height % patch_size or width % patch_size:
            raise ValueError(
                f"patch_size must divide the image, got patch_size={patch_size} for {height} x {width} pixels; "
                "choose a common divisor, or resize the image"
            )
        self.in_keys = ["pixels"]
        self.out_features = d_model
        self.num_tokens = (height // patch_size) * (width // patch_size)
        self.pixel_range = pixel_range
        self.encoder = TokenEncoder(
            d_model,
            num_layers,
            num_heads,
            feedforward_ratio=feedforward_ratio,
            dropout=dropout,
            norm=norm,
            pooling=pooling,
        )
        self.patches = nn.Conv2d(channels, d_model, patch_size, patch_size)
        self.positions = nn.Parameter(token_table(self.num_tokens, d_model))

    def reset_parameters(self) -> None:
        """Draw the positions again; the layers inside do not change."""
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map images ``[*B, C, H, W]``, uint8 or floating point, to features ``[*B, d]``."""
        features = self.encoder(self._embed(pixels))
        return features if pixels.dim() == 4 else features.reshape(*pixels.shape[:-3], self.out_features)

    def tokens(self, pixels: Tensor) -> Tensor:
        """Map images ``[*B, C, H, W]`` to one encoded token for each patch, row by row, ``[*B, num_tokens, d]``."""
        tokens = self.encoder.tokens(self._embed(pixels))
        return tokens.reshape(*pixels.shape[:-3], self.num_tokens, self.out_features)

    def _embed(self, pixels: Tensor) -> Tensor:
        """Map images to patch embeddings with positions, ``[prod(B), num_tokens, d]``."""
        images = scale_pixels(as_image_batch(pixels, self.image_shape), self.positions.dtype, self.pixel_range)
        return self.patches(images).flatten(2).transpose(1, 2) + self.positions
