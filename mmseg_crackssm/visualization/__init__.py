from .overlay import draw_comparison, draw_overlay

__all__ = ['draw_comparison', 'draw_overlay']
