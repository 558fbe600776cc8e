from .image_files import has_image_writer, write_image
from .overlay import draw_comparison, draw_overlay

__all__ = [
    'draw_comparison',
    'draw_overlay',
    'has_image_writer',
    'write_image',
]
