import json
import runpy
import sys

import numpy as np
import pytest
from PIL import Image

from mmseg_crackssm.analysis.eval_masks import main
from mmseg_crackssm.analysis.prediction_files import read_scores
from mmseg_crackssm.evaluation import crack_scores, regroup_levels


def save(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array, mode).save(path)


@pytest.fixture
def folders(tmp_path):
    """Three images, their labels, and two sets of predictions."""
    rng = np.random.default_rng(0)
    for index in range(3):
        label = np.zeros((24, 32), dtype=np.uint8)
        label[rng.integers(2, 22)] = 255
        noise = rng.integers(0, 130, label.shape)
        good = (label * 0.49 + noise).astype(np.uint8)
        bad = (label * 0.3 + noise).astype(np.uint8)
        save(tmp_path / 'gt' / f'{index}.png', label)
        save(tmp_path / 'good' / f'{index}.png', good)
        save(tmp_path / 'bad' / f'{index}.png', bad)
    return tmp_path


def run(folders, *args, pred='good'):
    return main([str(folders / pred), str(folders / 'gt'), *map(str, args)])


def run_json(folders, *args, pred='good'):
    path = folders / 'out' / 'scores.json'
    assert run(folders, '--json', path, *args, pred=pred) == 0
    return json.loads(path.read_text())


def test_all_protocols(folders, capsys):
    scores = run_json(folders, '--protocol', 'all', '--rounds', '50')
    out = capsys.readouterr().out
    assert '3 images scored' in out and 'clDice' in out
    assert {'F1', 'ODS', 'miIoU', 'F1@5px', 'breaks', 'width_error'} < set(
        scores
    )
    assert scores['F1@2px'] > scores['F1'] > 0.8
    low, high = scores['intervals']['F1']
    assert low <= scores['F1'] <= high
    assert scores['num_images'] == 3


def test_equals_the_pure_functions(folders):
    histograms = []
    for index in range(3):
        levels = np.asarray(Image.open(folders / 'good' / f'{index}.png'))
        crack = np.asarray(Image.open(folders / 'gt' / f'{index}.png')) > 0
        histograms.append(
            [
                np.bincount(levels[part], minlength=256)
                for part in (~crack, crack)
            ]
        )
    expected = crack_scores(regroup_levels(histograms))
    scores = run_json(folders)
    assert {name: scores[name] for name in expected} == expected


def test_published_figures(golden_dir, tmp_path):
    """Images rebuilt from the histograms of SCSegamba's published maps."""
    golden = np.load(golden_dir / 'metrics_tut_hist.npz')
    for index, (background, crack) in enumerate(golden['hist']):
        levels = np.concatenate(
            [np.repeat(np.arange(256), x) for x in (background, crack)]
        )
        label = np.repeat([0, 255], [background.sum(), crack.sum()])
        for kind, values in (('pred', levels), ('gt', label)):
            save(
                tmp_path / kind / f'{index:03}.png',
                values.reshape(512, 512).astype(np.uint8),
            )
    out = tmp_path / 'scores.json'
    args = [str(tmp_path / 'pred'), str(tmp_path / 'gt'), '--json', str(out)]
    assert main([*args, '--score-map', 'logit', '--rounds', '0']) == 0
    scores = json.loads(out.read_text())
    for name in ('mIoU', 'ODS', 'OIS', 'F1', 'P', 'R'):
        assert scores[name] == pytest.approx(float(golden[name]), abs=1e-12)


def test_compare(folders, capsys):
    scores = run_json(folders, '--compare', folders / 'bad')
    assert 'second - first' in capsys.readouterr().out
    f1 = scores['compare']['F1']
    assert f1['first'] == scores['F1'] > f1['second']
    assert f1['interval'][1] < 0


@pytest.mark.parametrize(
    ('make', 'expected'),
    [
        (lambda x: x, 'levels'),
        (lambda x: np.repeat(x[..., None], 3, axis=2), 'levels'),
        (lambda x: x.astype(np.uint16) * 257, 'deep'),
        (lambda x: x.astype(np.float32) / 255, 'unit'),
        (lambda x: x > 127, 'mask'),
    ],
    ids=['L', 'RGB', '16 bits', 'float TIFF', '1 bit'],
)
def test_kinds_of_predictions(tmp_path, make, expected):
    levels = np.arange(240, dtype=np.uint8).reshape(12, 20)
    suffix = 'tif' if make(levels).dtype == np.float32 else 'png'
    save(tmp_path / f'x.{suffix}', make(levels))
    scores = read_scores(tmp_path / f'x.{suffix}')
    exact = {
        'levels': levels,
        'deep': levels.astype(np.uint16) * 257,
        'unit': levels / 255,
        'mask': levels > 127,
    }
    np.testing.assert_allclose(scores, exact[expected], atol=1e-7)
    kinds = {'levels': np.uint8, 'deep': np.uint16}
    assert scores.dtype == kinds.get(expected, np.float64)


def test_masks_of_0_and_1_are_masks(folders):
    for index in range(3):
        path = folders / 'good' / f'{index}.png'
        levels = np.asarray(Image.open(path))
        save(folders / 'ones' / path.name, (levels > 127).astype(np.uint8))
        save(folders / 'full' / path.name, (levels > 127) * np.uint8(255))
        save(folders / 'dark' / path.name, (levels > 127).astype(np.uint8))
    ones, full = (run_json(folders, pred=x) for x in ('ones', 'full'))
    assert ones == full and ones['F1'] > 0.8
    # Among score maps, one of 0 and 1 is a dark score map.
    ramp = np.arange(24 * 32).reshape(24, 32) % 30
    save(folders / 'dark' / '0.png', ramp.astype(np.uint8))
    assert run_json(folders, pred='dark')['F1'] == 0


@pytest.mark.parametrize(
    ('dtype', 'crack'),
    [
        (np.uint16, 1),
        (np.int32, 1),
        (np.uint16, 65535),
        (np.float32, 1),
        (np.uint8, 200),
    ],
)
def test_masks_of_other_kinds(folders, dtype, crack):
    full = dict(run_json(folders, '--rounds', 0))
    for index in range(3):
        levels = np.asarray(Image.open(folders / 'good' / f'{index}.png'))
        mask = (levels > 127).astype(dtype) * dtype(crack)
        save(folders / 'masks' / f'{index}.tif', mask)
    scores = run_json(folders, '--rounds', 0, pred='masks')
    assert {x: scores[x] for x in 'F1 P R'.split()} == {
        x: full[x] for x in 'F1 P R'.split()
    }


def test_palette_predictions(folders):
    """Palettes as labels have them; of greys, or with the crack's index 1."""
    for index in range(3):
        path = folders / 'good' / f'{index}.png'
        mask = (np.asarray(Image.open(path)) > 127).astype(np.uint8)
        save(folders / 'ones' / path.name, mask)
        image = Image.fromarray(mask, 'P')
        image.putpalette([0, 0, 0, 255, 0, 0])
        (folders / 'palette').mkdir(exist_ok=True)
        image.save(folders / 'palette' / path.name)
    ones, palette = (run_json(folders, pred=x) for x in ('ones', 'palette'))
    assert ones == palette and ones['F1'] > 0.8


@pytest.mark.parametrize(
    ('values', 'dtype', 'messages'),
    [
        ([255], np.uint16, ['no level above 255', 'with 8 bits', '257']),
        ([255], np.int32, ['no level above 255']),
        ([2], np.uint8, ['2 (first in', '0.png', 'labels rather']),
        ([1, 2], np.uint8, ['labels rather', 'write crack as 255']),
        ([1, 255], np.uint8, ['1 (first in', '255 (first in', 'several']),
        ([1, 65535], np.uint16, ['several kinds', '65535']),
        ([1000], np.uint16, ['labels rather', 'write crack as 65535']),
    ],
)
def test_levels_that_are_no_scores(folders, capsys, values, dtype, messages):
    for index in range(3):
        levels = np.asarray(Image.open(folders / 'good' / f'{index}.png'))
        value = dtype(values[index % len(values)])
        suffix = 'tif' if dtype == np.int32 else 'png'
        mask = (levels > 127).astype(dtype) * value
        save(folders / 'odd' / f'{index}.{suffix}', mask)
    assert run(folders, pred='odd') == 1
    captured = capsys.readouterr()
    assert captured.out == ''
    for message in messages:
        assert message in captured.err


@pytest.mark.parametrize(
    'values', [[0], [255], [0, 255], [128, 255], [1, 254, 255]]
)
def test_few_levels_that_are_scores(folders, values):
    """Blank, full, of two models, or next to both ends as JPEG has them."""
    for index in range(3):
        pixels = np.resize(np.uint8(values), (24, 32))
        save(folders / 'few' / f'{index}.png', pixels)
    assert run_json(folders, pred='few')['num_images'] == 3


def test_labels_of_dark_cracks(folders, capsys):
    expected = run_json(folders)
    for path in (folders / 'gt').iterdir():
        save(path, 255 - np.asarray(Image.open(path)))
    capsys.readouterr()
    assert run(folders) == 1
    captured = capsys.readouterr()
    assert '3 of 3 labels are more than half crack' in captured.err
    assert 'crack_values=' not in captured.out + captured.err
    assert run_json(folders, '--gt-crack-values', '0') == expected


def test_labels_with_pixels_to_ignore(folders, capsys):
    path = folders / 'gt' / '1.png'
    label = np.array(Image.open(path)) // 255
    label[:, :4] = 255
    save(path, label)
    assert run(folders) == 1
    error = capsys.readouterr().err
    assert '--gt-ignore-values' in error and 'LoadCrack' not in error
    # Then 255 is not crack elsewhere either: in all labels alike.
    for index in (0, 2):
        path = folders / 'gt' / f'{index}.png'
        save(path, np.asarray(Image.open(path)) // 255)
    assert run_json(folders, '--gt-ignore-values', '255')['F1'] > 0.8


def test_suffixes_and_subfolders(folders):
    for index in range(3):
        (folders / 'named').mkdir(exist_ok=True)
        (folders / 'good' / f'{index}.png').rename(
            folders / 'named' / f'{index}_prob.PNG'
        )
    args = ('--pred-suffix', '_prob.png', '--gt-suffix', '.png')
    assert run_json(folders, *args, pred='named')['num_images'] == 3


def break_png(folders):
    path = folders / 'good' / '1.png'
    path.write_bytes(path.read_bytes()[:40])


def resize(folders):
    save(folders / 'good' / '1.png', np.zeros((12, 16), dtype=np.uint8))


def empty(folders):
    for path in (folders / 'good').iterdir():
        path.unlink()


def all_white(folders):
    save(folders / 'gt' / '1.png', np.full((24, 32), 255, dtype=np.uint8))


def rename(folders):
    for path in (folders / 'good').iterdir():
        path.rename(path.with_name(f'p{path.name}'))


def lose_one(folders):
    (folders / 'good' / '1.png').unlink()


def logits(folders):
    array = np.linspace(-3, 3, 24 * 32, dtype=np.float32).reshape(24, 32)
    (folders / 'good' / '1.png').unlink()
    save(folders / 'good' / '1.tif', array)


def not_a_number(folders):
    array = np.full((24, 32), 0.5, dtype=np.float32)
    array[3, 4] = np.nan
    (folders / 'good' / '1.png').unlink()
    save(folders / 'good' / '1.tif', array)


def float_levels(folders):
    path = folders / 'good' / '1.png'
    save(path.with_suffix('.tif'), np.float32(np.asarray(Image.open(path))))
    path.unlink()


def overlay(folders):
    array = np.zeros((24, 32, 3), dtype=np.uint8)
    array[5:9, :, 0] = 255
    save(folders / 'good' / '1.png', array)


@pytest.mark.parametrize(
    ('change', 'messages'),
    [
        (break_png, ['1.png cannot be decoded', 'export it again']),
        (resize, ['12 x 16', '24 x 32', 'resize']),
        (empty, ['no file in', '--pred-suffix']),
        (all_white, ['ambiguous', 'gt', '1.png', '--gt-crack-values']),
        (rename, ['p0', '0 pairs', '--pred-suffix']),
        (lose_one, ['1 labels without prediction (1)', '--skip-unpaired']),
        (logits, ['-3 to 3', 'sigmoid']),
        (not_a_number, ['1.tif holds nan in 1 pixels']),
        (float_levels, ['holds floats', 'divide them by 255']),
        (overlay, ['1.png has the colour mode RGB', 'overlays']),
    ],
)
def test_bad_input(folders, capsys, change, messages):
    change(folders)
    assert run(folders) == 1
    captured = capsys.readouterr()
    assert captured.out == ''
    for message in messages:
        assert message in captured.err


def test_skip_unpaired_tells_the_number(folders, capsys):
    lose_one(folders)
    save(folders / 'bad' / '7.png', np.zeros((24, 32), dtype=np.uint8))
    (folders / 'bad' / '1.png').unlink()
    options = ('--skip-unpaired', '--compare', folders / 'bad')
    scores = run_json(folders, *options)
    out = capsys.readouterr().out
    assert '2 images scored' in out
    assert out.count('1 labels without prediction (1)') == 2
    assert out.count('Skipped: 1 predictions without label (7)') == 1
    assert scores['skipped'] == {'predictions': [], 'labels': ['1']}


def test_file_name_in_another_encoding(folders, capsys):
    name = b'stra\xdfe.png'.decode('utf-8', 'surrogateescape')
    for folder in ('good', 'gt'):
        (folders / folder / '1.png').rename(folders / folder / name)
    assert run_json(folders)['num_images'] == 3
    (folders / 'good' / name).write_bytes(b'no image')
    assert run(folders) == 1
    assert 'cannot be decoded' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('--threshold', '1.5'), '[0, 1)'),
        (('--rounds', '-1'), '--rounds'),
        (('--radius', '-1'), 'radii'),
        (('--protocol', 'image', '--score-map', 'logit'), 'probabilities'),
        (('--protocol', 'all', '--score-map', 'logit'), 'crack tolerance'),
        (('--json', '{}/gt'), 'is a folder'),
        (('--compare', 'nowhere'), 'nowhere is no folder'),
    ],
)
def test_bad_arguments(folders, capsys, args, message):
    assert run(folders, *(arg.format(folders) for arg in args)) == 1
    captured = capsys.readouterr()
    assert message in captured.err and 'elapsed' not in captured.err


def test_script(repo_root, folders, monkeypatch):
    tool = repo_root / 'tools' / 'analysis' / 'eval_masks.py'
    args = [str(tool), str(folders / 'good'), str(folders / 'gt')]
    monkeypatch.setattr(sys, 'argv', args)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(tool), run_name='__main__')
    assert end.value.code == 0
