import itertools
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.models.utils import resize
from PIL import Image
from tiny_run import tiny_model

from mmseg_crackssm.analysis import scan_capture, scan_distance, show_scan
from mmseg_crackssm.analysis.scan_drawing import (
    PathPanel,
    ScanPath,
    neighbour_reach,
    token_points,
)
from mmseg_crackssm.analysis.scan_reads import Reads, ReadSum, pick_reads
from mmseg_crackssm.apis.errors import UsageError
from mmseg_crackssm.apis.inference import init_model
from mmseg_crackssm.models.layers.dpsm import AdaptiveTokenReordering

DIRECTIONS = ['horizontal', 'vertical', 'diagonal', 'anti_diagonal']


def config_of(dpsm=None, **preprocessor):
    model = tiny_model()
    model['data_preprocessor'].update(preprocessor)
    encoder = dict(model['backbone'], num_stages=4, stem_channels=4)
    encoder.update(
        out_indices=(0, 1, 2, 3), strides=(1, 2, 2, 2), dilations=(1,) * 4
    )
    model['backbone'] = encoder
    if dpsm is not None:
        settings = dict(
            in_channels=(4, 8, 16, 32), direction_channels=4, d_state=2
        )
        model['backbone'] = dict(
            type='CrackSSMBackbone',
            encoder=encoder,
            dpsm={**settings, **dpsm},
        )
    return Config(
        dict(
            default_scope='mmseg',
            custom_imports=dict(imports=['mmseg_crackssm']),
            model=model,
            test_pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='PackSegInputs'),
            ],
        )
    )


def capture(cfg, shape=(64, 48)):
    model = init_model(cfg, device='cpu')
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    inputs, frame = scan_capture.load_input(model, image)
    return model, frame, scan_capture.capture_scans(model, inputs)


def test_sequences_are_sorted_by_direction_intensity():
    model, _, scans = capture(config_of({}))
    assert list(scans.directions) == DIRECTIONS
    assert [scan.grid for scan in scans.levels] == [(16, 12), (8, 6), (4, 3)]
    assert scans.coarsest == 3
    for grid, sequences in scans.levels:
        assert list(sequences) == [f'ATR {x}' for x in DIRECTIONS]
        for order, key in zip(
            sequences.values(), scans.directions.values(), strict=True
        ):
            assert sorted(order) == list(range(grid[0] * grid[1]))
            key = resize(
                torch.from_numpy(key)[None, None], size=grid, mode='bilinear'
            )
            assert (key.flatten()[order].diff() <= 0).all()
    assert not any('token_order' in vars(x) for x in model.modules())


def test_orders_are_those_of_the_forward_pass(monkeypatch):
    """Not of a computation beside it."""

    def backwards(self, direction_map, size):
        order = torch.arange(size[0] * size[1]).flip(0)
        return order.expand(1, len(self.snakes), -1)

    monkeypatch.setattr(AdaptiveTokenReordering, 'token_order', backwards)
    _, _, scans = capture(config_of({}))
    for scan in scans.levels:
        for order in scan.sequences.values():
            assert order[0] == len(order) - 1 and order[-1] == 0


def test_two_directions_unsorted():
    settings = dict(directions=('vertical', 'diagonal'), scan='snake')
    _, _, scans = capture(config_of(settings))
    fixed = scan_capture.fixed_orders((4, 3))
    sequences = scans.levels[2].sequences
    assert list(sequences) == ['unsorted vertical', 'unsorted diagonal']
    np.testing.assert_array_equal(
        sequences['unsorted vertical'], fixed['snake_v']
    )
    assert 'DPSM, nearest of 2' in scan_distance.orders_of(scans.levels[2])


def test_without_dpsm():
    _, _, scans = capture(config_of())
    assert [x.grid for x in scans.levels][::3] == [(16, 12), (2, 2)]
    assert not scans.directions and not scans.levels[0].sequences


def test_reads_are_those_of_the_forward_pass():
    model, _, scans = capture(config_of(dict(scan='das+atr', head_dim=4)))
    assert [x.layer for x in scans.reads] == [
        f'backbone.dpsm.levels.{i}.das' for i in range(3)
    ]
    assert [x.grid for x in scans.reads] == [x.grid for x in scans.levels]
    # Zero before training: each token is read where it is.
    assert not any(x.offsets.any() for x in scans.reads)
    assert list(scans.levels[0].sequences)[0] == 'ATR horizontal'
    offsets = torch.tensor([1.5, -0.25, 0.0, 2.0, 0.0, 0.0, -3.0, 0.0])
    model.backbone.dpsm.levels[2].das.offset.bias.data = offsets
    inputs = torch.randn(1, 3, 64, 48)
    reads = scan_capture.capture_scans(model, inputs).reads[2]
    assert reads.offsets.shape == (4, 2, 4, 3)
    assert reads.offsets[:, :, 1, 2].flatten().tolist() == offsets.tolist()
    assert not any('offsets' in vars(x) for x in model.modules())


def test_layers_of_the_encoder_read_row_after_row():
    """Also where DPSM, behind them, scans in other orders."""
    cfg = config_of(dict(scan='das+atr', head_dim=4))
    arch = dict(channels=(4, 8, 16, 32), depths=(1,) * 4, head_dim=4)
    cfg.model.backbone.pop('encoder')
    cfg.model.backbone['encoder'] = dict(type='DAMamba', arch=arch)
    model, _, scans = capture(cfg)
    assert [x.in_dpsm for x in scans.reads] == [False] * 4 + [True] * 3
    image = np.zeros((64, 48, 3), np.uint8)
    for layer, name in (
        ('stages.2.0.mixer.das', 'raster'),
        ('dpsm.levels.2.das', 'ATR horizontal'),
    ):
        figure = show_scan.make_figure(model, image, layer=layer)
        titles = [axis.get_title() for axis in figure._figure.axes]
        assert any(
            title.startswith('DAS group ') and f', {name}\n' in title
            for title in titles
        )


def test_padding():
    cfg = config_of({}, size=None, test_cfg=dict(size_divisor=32))
    _, frame, scans = capture(cfg, shape=(40, 50))
    assert frame == ((64, 64), slice(0, 40), slice(0, 50))
    assert scans.levels[0].grid == (16, 16)
    placed = frame.place(np.zeros((20, 25, 3), np.uint8))
    assert not placed[:40, :50].any() and (placed[40:] == 127).all()


def test_models_without_maps():
    inputs = torch.zeros(1, 3, 8, 8)
    with pytest.raises(UsageError, match='no backbone'):
        scan_capture.capture_scans(torch.nn.Identity(), inputs)
    model = torch.nn.Module()
    model.backbone = torch.nn.Flatten()
    model.extract_feat = model.backbone
    with pytest.raises(UsageError, match=r'feature maps .*got Tensor'):
        scan_capture.capture_scans(model, inputs)


def whole(height, width):
    return scan_capture.Frame(
        (height, width), slice(0, height), slice(0, width)
    )


def test_a_token_is_crack_if_its_cell_holds_any():
    label = np.zeros((8, 8), np.uint8)
    label[3, 4] = label[7, 7] = 1
    label[0, 0] = 255
    found = scan_distance.crack_tokens(label, (2, 2), whole(8, 8))
    assert found.tolist() == [[False, True], [False, True]]


def test_crack_tokens_of_a_resized_and_padded_image():
    label = np.zeros((2, 2), np.uint8)
    label[1, 0] = 1
    # Doubled, and put at row 4 and column 2 of 8 x 8 pixels.
    frame = scan_capture.Frame((8, 8), slice(4, 8), slice(2, 6))
    found = scan_distance.crack_tokens(label, (4, 4), frame)
    assert np.argwhere(found).tolist() == [[3, 1]]


def distances(crack, name):
    pairs = scan_distance.neighbour_pairs(np.array(crack, dtype=bool))
    order = scan_capture.fixed_orders(np.shape(crack))[name]
    return scan_distance.pair_distances(pairs, order[None]).tolist()


def test_horizontal_crack():
    crack = np.zeros((5, 7))
    crack[2, 1:5] = 1
    assert distances(crack, 'raster') == [1, 1, 1]
    assert distances(crack, 'raster_t') == [5, 5, 5]
    assert distances(crack, 'snake_h') == [1, 1, 1]
    # The turn to the next column is at its top or its bottom.
    assert distances(crack, 'snake_v') == [5, 5, 5]


def test_vertical_crack():
    crack = np.zeros((5, 7))
    crack[1:4, 3] = 1
    assert distances(crack, 'raster') == [7, 7]
    assert distances(crack, 'raster_t') == [1, 1]
    assert distances(crack, 'raster backwards') == [7, 7]


def test_diagonal_cracks():
    crack = np.eye(4)
    assert distances(crack, 'raster') == [5, 5, 5]
    assert distances(crack, 'snake_d') == [1, 1, 1]
    assert distances(crack[:, ::-1], 'raster') == [3, 3, 3]
    assert distances(crack[:, ::-1], 'snake_a') == [1, 1, 1]


def test_each_pair_counts_once():
    pairs = scan_distance.neighbour_pairs(np.ones((2, 2), dtype=bool))
    found = sorted(sorted(pair) for pair in pairs.tolist())
    assert found == [list(x) for x in itertools.combinations(range(4), 2)]
    assert len(scan_distance.neighbour_pairs(np.eye(1, dtype=bool))) == 0


def test_nearest_of_several_sequences():
    pairs = np.array([[0, 1], [0, 3]])
    orders = np.array([[0, 2, 3, 1], [0, 1, 2, 3]])
    found = scan_distance.pair_distances(pairs, orders)
    assert found.tolist() == [1, 2]


@pytest.mark.parametrize('sequences', [1, 2, 3])
def test_random_permutations(sequences):
    """Against all of them, of four tokens."""
    positions = list(itertools.combinations(range(4), 2))
    every = itertools.product(positions, repeat=sequences)
    nearest = [min(b - a for a, b in one) for one in every]
    found = scan_distance.random_distance(4, sequences)
    assert found == pytest.approx(np.mean(nearest))
    assert scan_distance.random_distance(600) == pytest.approx(601 / 3)


def test_means_over_images():
    """Over pairs, not over images; each image has its own length."""
    total = scan_distance.DistanceSum()
    for shape, tokens in (((1, 4), 3), ((2, 3), 0), ((2, 5), 2)):
        crack = np.zeros(shape, dtype=bool)
        crack[0, :tokens] = True
        total.add(scan_capture.LevelScan(shape, {}), crack)
    found = total.result()
    assert (found.tokens, found.pairs) == (5, 3)
    assert found.means['raster'] == pytest.approx((1, (1 / 2 + 1 / 10) / 3))
    assert found.means['raster_t'] == pytest.approx((4 / 3, 0.7 / 3))
    assert found.means['snakes, nearest of 4'].steps == 1
    assert found.means['random'].steps == pytest.approx((2 * 5 + 11) / 9)
    assert scan_distance.DistanceSum().result().means == {}


def test_points():
    points = token_points(np.array([5, 0]), (2, 3), (20, 60))
    assert points.tolist() == [[50, 15], [10, 5]]
    assert neighbour_reach((2, 3), (30, 120)) == pytest.approx(
        np.hypot(15, 40)
    )


def test_path_is_drawn_in_order():
    image = np.full((32, 96, 3), 200, np.uint8)
    points = np.array([[16, 16], [48, 16], [80, 16]])
    panel = PathPanel(image, ScanPath(points, reach=32))
    empty = panel.render()
    assert empty.shape == (320, 960, 3) and len(np.unique(empty)) == 1
    panel.grow(2)
    half = panel.render()
    changed = (half != empty).any(axis=(0, 2))
    assert changed[160:480].all() and not changed[520:].any()
    panel.grow(3)
    done = panel.render()
    assert (done[160, 320] == half[160, 320]).all()
    first, last = done[160, 160].astype(int), done[160, 800].astype(int)
    # From dark blue to dark red.
    assert first[2] > first[0] and last[0] > last[2] + 50


def test_jumps_are_faint():
    image = np.full((32, 96, 3), 200, np.uint8)
    points = np.array([[16, 16], [80, 16]])
    shown = []
    for reach in (10, 100):
        panel = PathPanel(image, ScanPath(points, reach))
        panel.grow(2)
        shown.append(panel.render()[130:190, 480].astype(int))
    jump, step = (abs(x - 219).max() for x in shown)
    assert 0 < jump < step


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'config.py'
    config_of({}).dump(path)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ('images', 'masks'):
        (tmp_path / name).mkdir()
    for name in ('a', 'b'):
        image = rng.integers(0, 256, (32, 64, 3), np.uint8)
        mask = np.zeros((32, 64), np.uint8)
        mask[10] = 255
        cv2.imwrite(str(tmp_path / 'images' / f'{name}.jpg'), image)
        cv2.imwrite(str(tmp_path / 'masks' / f'{name}.png'), mask)
    return tmp_path


def test_picture_and_gif(config, folder, capsys):
    arguments = [config, str(folder / 'images' / 'a.jpg')]
    arguments += ['--animate', 'gif', '--frames', '3', '--level', '2']
    assert show_scan.main([*arguments, '--out', str(folder / 'out')]) == 0
    assert 'random weights' in capsys.readouterr().out
    assert cv2.imread(str(folder / 'out' / 'a_scan.png')) is not None
    with Image.open(folder / 'out' / 'a_scan.gif') as animation:
        assert animation.n_frames == 3


def test_video_and_checkpoint(tmp_path, folder, capsys):
    """Of a model without DPSM; options between the positional ones."""
    cfg = config_of()
    config, checkpoint = tmp_path / 'plain.py', tmp_path / 'trained.pth'
    cfg.dump(config)
    torch.save({'state_dict': init_model(cfg).state_dict()}, checkpoint)
    arguments = [str(config), str(checkpoint), '--out', str(folder / 'out')]
    arguments += ['--animate', 'mp4', '--frames', '2']
    image = str(folder / 'images' / 'a.jpg')
    assert show_scan.main([*arguments, image]) == 0
    assert 'trained.pth' in capsys.readouterr().out
    assert (folder / 'out' / 'a_scan.png').exists()
    video = cv2.VideoCapture(str(folder / 'out' / 'a_scan.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 2 + 24


def test_distances(config, folder, capsys):
    arguments = [config, str(folder / 'images')]
    arguments += ['--labels', str(folder / 'masks')]
    out = folder / 'new' / 'distances.json'
    assert show_scan.main([*arguments, '--json', str(out)]) == 0
    printed = capsys.readouterr().out
    assert 'random weights' in printed and 'holds any crack pixel' in printed
    report = json.loads(out.read_text())
    assert list(report['levels']) == ['1', '2', '3']
    level = report['levels']['1']
    # Two images with a row of 16 of 8 x 16 tokens.
    assert (level['tokens'], level['pairs']) == (32, 30)
    orders = level['orders']
    assert orders['raster'] == {'steps': 1, 'share': 1 / 128}
    assert orders['raster_t'] == {'steps': 8, 'share': 1 / 16}
    assert orders['random']['steps'] == pytest.approx(43)
    assert all(orders[f'ATR {x}']['steps'] >= 1 for x in DIRECTIONS)
    assert f'{orders["ATR vertical"]["steps"]:.2f}' in printed
    assert not (folder / 'out').exists()


@pytest.mark.parametrize(
    ('image', 'options', 'message'),
    [
        ('absent.jpg', [], 'does not exist'),
        ('masks', [], '--labels FOLDER'),
        ('images/a.jpg', ['--labels', 'masks'], 'a folder of images with'),
        ('broken.jpg', [], 'export it again'),
        ('images/a.jpg', ['--level', '4'], '3 (2 x 4 tokens)'),
        ('images/a.jpg', ['--frames', '0'], 'at least 1'),
        ('images/a.jpg', ['--json', 'x.json'], 'give --labels'),
        ('images/a.jpg', ['--out', 'broken.jpg'], 'expected a folder'),
        ('images', ['--labels', 'absent'], 'is no folder'),
        ('images', ['--labels', 'masks', '--animate', 'gif'], 'one image'),
        ('images', ['--labels', 'masks', '--level', '0'], '1 (8 x 16'),
        ('images', ['--labels', 'large'], 'is 16 x 16 (height x width)'),
        ('images', ['--labels', 'some'], 'images without mask (b)'),
        ('images', ['--labels', 'empty'], 'no two neighbouring tokens'),
        ('images', ['--labels', 'unclear'], 'Convert the masks to 0'),
    ],
)
def test_bad_input(
    config, folder, capsys, monkeypatch, image, options, message
):
    monkeypatch.chdir(folder)
    (folder / 'broken.jpg').write_bytes(b'no image')
    levels = np.arange(4, dtype=np.uint8).repeat(512).reshape(32, 64)
    for name, files, mask in (
        ('large', 'ab', np.zeros((16, 16), np.uint8)),
        ('some', 'a', np.zeros((32, 64), np.uint8)),
        ('empty', 'ab', np.zeros((32, 64), np.uint8)),
        ('unclear', 'ab', levels),
    ):
        (folder / name).mkdir()
        for stem in files:
            cv2.imwrite(f'{name}/{stem}.png', mask)
    assert show_scan.main([config, image, *options]) == 1
    assert message in capsys.readouterr().err


def test_this_opencv_cannot_write_videos(config, folder, capsys, monkeypatch):
    writer = SimpleNamespace(isOpened=lambda: False, release=lambda: None)
    monkeypatch.setattr(cv2, 'VideoWriter', lambda *args: writer)
    arguments = [config, str(folder / 'images' / 'a.jpg')]
    arguments += ['--animate', 'mp4', '--out', str(folder / 'out')]
    assert show_scan.main([*arguments, '--frames', '1']) == 1
    assert '--animate gif' in capsys.readouterr().err


def reads_of(*offsets, grid=(2, 3), layer='stages.0.das'):
    """Groups that each read at one offset (dx, dy) everywhere."""
    shape = (len(offsets), 2, *grid)
    offsets = np.array(offsets, np.float32)[..., None, None]
    return Reads(layer, np.broadcast_to(offsets, shape))


def test_where_tokens_are_read():
    reads = reads_of((0, 0), (0.5, -1))
    order = np.array([5, 0])
    shape = (20, 60)
    same = token_points(order, (2, 3), shape)
    np.testing.assert_allclose(reads.points(1, order, shape), same)
    # Tokens are 20 pixels wide and 10 high.
    moved = reads.points(2, order, shape) - same
    assert moved.tolist() == [[10, -10], [10, -10]]
    assert reads.lengths() == pytest.approx([0, np.hypot(0.5, 1)])
    # The upper row reads above the map; the right column on its border.
    assert reads.outside() == pytest.approx([0, 4 / 6])


def test_reads_on_crack():
    crack = np.array([[True, False, False], [False, False, True]])
    assert reads_of((0, 0)).on_crack(crack) == pytest.approx(2 / 6)
    assert reads_of((1, 0)).on_crack(crack) == pytest.approx(1 / 6)
    assert reads_of((0.4, 0.4), (-9, 0)).on_crack(crack) == pytest.approx(
        1 / 6
    )
    total = ReadSum()
    total.add(reads_of((1, 0)), crack)
    total.add(reads_of((0, 0), grid=(1, 2)), np.ones((1, 2), bool))
    assert total.result() == pytest.approx((3 / 8, 4 / 8))


def test_groups_that_read_far_are_shown():
    reads = reads_of((0, 1), (3, 0), (0, 0), (2, 2))
    assert reads.pick_groups(None, 2) == [2, 4]
    assert reads.pick_groups(None, 9) == [1, 2, 3, 4]
    assert reads.pick_groups([3, 1], 2) == [3, 1]
    with pytest.raises(UsageError, match='--groups 5: .* groups 1 to 4'):
        reads.pick_groups([5], 2)


def test_layer_is_found_by_the_end_of_its_path():
    names = ('stages.0.10.das', 'stages.0.0.das', 'stages.1.0.das')
    reads = [
        reads_of((0, 0), layer=name, grid=(2, 3 + i // 2))
        for i, name in enumerate(names)
    ]
    assert pick_reads(reads, (2, 3), None) is reads[1]
    assert pick_reads(reads, (9, 9), None) is None
    assert pick_reads(reads, (2, 3), '10.das') is reads[0]
    assert pick_reads(reads, (2, 3), '0.das') is reads[1]
    for wrong in ('das', 'stages.1.0.das'):
        with pytest.raises(UsageError, match=r'out of stages\.0\.10\.das, '):
            pick_reads(reads, (2, 3), wrong)
    with pytest.raises(UsageError, match='out of none at all'):
        pick_reads([], (2, 3), 'das')


def test_damamba(tmp_path, folder, capsys):
    cfg = config_of()
    arch = dict(channels=(8, 8, 8, 8), depths=(1, 1, 2, 1), head_dim=4)
    cfg.model.backbone = dict(type='DAMamba', arch=arch)
    cfg.model.decode_head.update(in_channels=8, channels=8)
    config = tmp_path / 'damamba.py'
    cfg.dump(config)
    image = folder / 'images' / 'a.jpg'
    arguments = [str(config), str(image), '--out', str(folder / 'out')]
    arguments += ['--level', '3']
    assert show_scan.main([*arguments, '--layer', '1.mixer.das']) == 0
    assert cv2.imread(str(folder / 'out' / 'a_scan.png')) is not None
    assert show_scan.main([*arguments, '--layer', 'das']) == 1
    assert 'stages.2.0.mixer.das, ' in capsys.readouterr().err
    arguments = [str(config), str(folder / 'images'), '--level', '1']
    arguments += ['--labels', str(folder / 'masks')]
    out = folder / 'reads.json'
    assert show_scan.main([*arguments, '--json', str(out)]) == 0
    assert 'dynamic adaptive scan reads' in capsys.readouterr().out
    reads = json.loads(out.read_text())['reads']
    assert list(reads) == ['backbone.stages.0.0.mixer.das']
    assert reads['backbone.stages.0.0.mixer.das']['tokens'] == 1 / 8
    assert show_scan.main([*arguments, '--groups', '1']) == 1
    assert '--groups is for one image' in capsys.readouterr().err


def test_groups_without_das(config, folder, capsys):
    image = str(folder / 'images' / 'a.jpg')
    assert show_scan.main([config, image, '--groups', '1']) == 1
    assert 'no layer with dynamic adaptive scan' in capsys.readouterr().err
