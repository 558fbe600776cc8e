"""S6: the selective state-space layer on already ordered token sequences."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ...ops import resolve_backend, selective_scan, selective_scan_paths
from .patch_layers import as_kernel

SCAN_DTYPES = dict(float32=torch.float32, float64=torch.float64)
"""Precisions that the recurrence may be asked to run in."""


# Of the C kernel's forward with its widest vectors; a task of its backward is
# a sequence.
_CHANNELS_PER_TASK = 16


class S6(nn.Module):
    """Selective state-space layer over K independent sequences.

    Each sequence k has parameters of its own. From its tokens x the layer
    derives the step size Δ = softplus(W_dt W_x x + b), the input matrix B
    and the output matrix C, and runs h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t x_t,
    y_t = C_t h_t + D x_t (Mamba, Algorithm 2; VMamba, Section 4).

    The projections follow autocast; the recurrence never runs below
    ``scan_dtype``, because exp(Δ A) and the long accumulation lose the
    signal, or become NaN, in half precision. Nor does its result, whose
    range half precision may not hold: what follows decides when to round.

    Weight decay has no meaning for ``A_log``, ``D`` and ``dt_proj_bias``: a
    config says so with ``optim_wrapper=dict(
    constructor='NoDecayOptimWrapperConstructor',
    paramwise_cfg=dict(no_decay=('A_log', 'D', 'dt_proj_bias')))``.

    Args:
        d_inner: Channels d of one sequence.
        d_state: State size N per channel.
        dt_rank: Rank R of the projection to Δ; ``'auto'`` is
            ceil(d_inner / 16).
        n_groups: Number K of sequences.
        dt_min: Lower end of the log-uniform initial step size.
        dt_max: Upper end of the log-uniform initial step size.
        dt_floor: Least initial step size.
        backend: Backend of the selective scan.
        scan_dtype: Least precision of the recurrence, a key of
            :data:`SCAN_DTYPES`. float64 input stays float64 where the
            backend supports it.

    Attributes:
        fused: Whether :meth:`runs_natively` may ever be true.

    Raises:
        ValueError: On a size below 1, or an unknown ``scan_dtype``.
    """

    def __init__(
        self,
        d_inner: int,
        d_state: int = 16,
        dt_rank: int | str = 'auto',
        n_groups: int = 4,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_floor: float = 1e-4,
        backend: str = 'auto',
        scan_dtype: str = 'float32',
    ) -> None:
        super().__init__()
        if dt_rank == 'auto':
            dt_rank = math.ceil(d_inner / 16)
        sizes = dict(
            d_inner=d_inner,
            d_state=d_state,
            dt_rank=dt_rank,
            n_groups=n_groups,
        )
        for name, size in sizes.items():
            if not isinstance(size, int) or size < 1:
                raise ValueError(
                    f'S6 {name}: expected a positive integer, got {size!r}'
                )
        if scan_dtype not in SCAN_DTYPES:
            raise ValueError(
                f'S6 scan_dtype: expected one of {tuple(SCAN_DTYPES)}, got '
                f'{scan_dtype!r}. The recurrence needs at least float32.'
            )
        self.d_inner = d_inner
        self.d_state = d_state
        self.dt_rank = dt_rank
        self.n_groups = n_groups
        self.backend = backend
        self.fused = True
        self.scan_dtype = SCAN_DTYPES[scan_dtype]

        self.x_proj_weight = nn.Parameter(
            torch.empty(n_groups, dt_rank + 2 * d_state, d_inner)
        )
        self.dt_proj_weight = nn.Parameter(
            torch.empty(n_groups, d_inner, dt_rank)
        )
        self.dt_proj_bias = nn.Parameter(torch.empty(n_groups, d_inner))
        self.A_log = nn.Parameter(torch.empty(n_groups * d_inner, d_state))
        self.D = nn.Parameter(torch.empty(n_groups * d_inner))
        self.reset_parameters(dt_min=dt_min, dt_max=dt_max, dt_floor=dt_floor)

    @torch.no_grad()
    def reset_parameters(
        self,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_floor: float = 1e-4,
    ) -> None:
        """Initialise as Mamba does.

        A = -(1, ..., N) per channel (S4D-real), D = 1, and a bias whose
        softplus, the initial step size, is log-uniform in
        [``dt_min``, ``dt_max``].
        """
        bound = self.d_inner**-0.5
        nn.init.uniform_(self.x_proj_weight, -bound, bound)
        bound = self.dt_rank**-0.5
        nn.init.uniform_(self.dt_proj_weight, -bound, bound)
        dt = torch.empty_like(self.dt_proj_bias).uniform_(
            math.log(dt_min), math.log(dt_max)
        )
        dt = dt.exp().clamp(min=dt_floor)
        # The inverse of softplus, written to stay exact for small dt.
        self.dt_proj_bias.copy_(dt + torch.log(-torch.expm1(-dt)))
        steps = torch.arange(
            1,
            self.d_state + 1,
            dtype=self.A_log.dtype,
            device=self.A_log.device,
        )
        self.A_log.copy_(steps.log().expand_as(self.A_log))
        nn.init.ones_(self.D)

    def forward(self, xs: Tensor) -> Tensor:
        """Run the K sequences.

        Args:
            xs: Tokens (B, K, d, L).

        Returns:
            (B, K, d, L), in the dtype of ``xs`` but at least float32.

        Raises:
            ValueError: If K or d differ from the layer's.
        """
        if xs.ndim != 4 or xs.shape[1:3] != (self.n_groups, self.d_inner):
            raise ValueError(
                f'S6: expected tokens (B, {self.n_groups}, {self.d_inner}, '
                f'L), got {tuple(xs.shape)}'
            )
        projected = torch.matmul(self.x_proj_weight, xs)
        dts, Bs, Cs = projected.split(
            (self.dt_rank, self.d_state, self.d_state), dim=2
        )
        dts = torch.matmul(self.dt_proj_weight, dts)

        dtype = torch.promote_types(xs.dtype, self.scan_dtype)
        ys = selective_scan(
            xs.flatten(1, 2).to(dtype),
            dts.flatten(1, 2).to(dtype),
            -torch.exp(self.A_log.to(dtype)),
            Bs.to(dtype),
            Cs.to(dtype),
            D=self.D.to(dtype),
            delta_bias=self.dt_proj_bias.flatten().to(dtype),
            delta_softplus=True,
            backend=self.backend,
        )
        ys = ys.to(torch.promote_types(xs.dtype, torch.float32))
        return ys.unflatten(1, (self.n_groups, self.d_inner))

    def runs_natively(self, x: Tensor) -> bool:
        """Whether the C kernel takes maps, on the CPU.

        A traced model holds the portable operator.

        Args:
            x: Map (B, d, H, W).
        """
        if (
            not self.fused
            or torch.compiler.is_compiling()
            or x.device.type != 'cpu'
        ):
            return False
        dtype = torch.promote_types(x.dtype, self.scan_dtype)
        return resolve_backend(self.backend, 'cpu', dtype) == 'native'

    def fuses(self, x: Tensor) -> bool:
        """Whether :meth:`along_paths` is there for a map, and faster.

        It is with the C kernel, where there are enough tasks to keep all
        threads busy.

        Args:
            x: Map (B, d, H, W).
        """
        if not self.runs_natively(x):
            return False
        tasks = math.ceil(self.d_inner / _CHANNELS_PER_TASK)
        if torch.is_grad_enabled():
            tasks = min(tasks, self.n_groups)
        return x.shape[0] * tasks >= torch.get_num_threads()

    def along_paths(self, x: Tensor, paths: Tensor, merge: bool) -> Tensor:
        """Run the K sequences in place: no token is copied into them.

        Equal to gathering the tokens along each path, :meth:`forward`, and
        scattering the results back; a map in channels-last memory is read
        without any copy. Only where :meth:`fuses`.

        Args:
            x: Map (B, d, H, W).
            paths: Pixel indices of each sequence, (K, H*W) or (B, K, H*W).
            merge: Whether the results of the sequences are added up.

        Returns:
            (B, d, H, W) if merged, else (B, K * d, H, W), in channels-last
            memory, in the dtype of ``x`` but at least float32.
        """
        dtype = torch.promote_types(x.dtype, self.scan_dtype)
        # The projections of all paths at once; as a convolution, which
        # outruns a matrix product on many processors.
        weight = as_kernel(self.x_proj_weight.flatten(0, 1))
        projected = F.conv2d(x, weight).permute(0, 2, 3, 1).flatten(1, 2)
        y = selective_scan_paths(
            x.permute(0, 2, 3, 1).flatten(1, 2).to(dtype),
            projected.unflatten(-1, (self.n_groups, -1)).to(dtype),
            self.dt_proj_weight.to(dtype),
            -torch.exp(self.A_log.to(dtype)),
            self.D.to(dtype),
            self.dt_proj_bias.flatten().to(dtype),
            paths,
            merge,
        )
        y = y.to(torch.promote_types(x.dtype, torch.float32))
        y = y.flatten(2).unflatten(1, x.shape[-2:])
        return y.permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        """The sizes and the backend, for ``print(module)``."""
        return (
            f'd_inner={self.d_inner}, d_state={self.d_state}, '
            f'dt_rank={self.dt_rank}, n_groups={self.n_groups}, '
            f'backend={self.backend!r}'
        )
