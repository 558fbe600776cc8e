"""Every benchmark from a miniature of its release to a score."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from PIL import Image
from tiny_run import tiny_model

from mmseg_crackssm import datasets
from mmseg_crackssm.apis import train_model
from mmseg_crackssm.apis.config import load_config
from mmseg_crackssm.datasets.converters import crackseg9k, pairs

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def draw(image, mask, size=(40, 32), mask_size=None, black=False, soft=False):
    """Write an image and its mask (crack: one row)."""
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    grey = np.full((height, width, 3), 120, dtype=np.uint8)
    grey[height // 2 - 2 :][:4] = 30
    Image.fromarray(grey).save(image)
    width, height = mask_size or size
    label = np.zeros((height, width), dtype=np.uint8)
    label[height // 2 - 2 :][:4] = 255
    if soft:
        label[height // 2 - 3] = label[height // 2 + 2] = np.linspace(
            20, 120, width
        )
    Image.fromarray(255 - label if black else label).save(mask)


def folders(root, images, masks, count=3, suffix=('.jpg', '.png'), **kwargs):
    for i in range(count):
        name = f'{i:03}.a'
        draw(
            root / images / f'{name}{suffix[0]}',
            root / masks / f'{name}{suffix[1]}',
            **kwargs,
        )


def tut(root):
    for split in ('train', 'val', 'test'):
        folders(root / 'TUT', f'{split}_img', f'{split}_lab')


def crack500(root):
    for split in ('train', 'val', 'test'):
        # Unpacked into a folder of its own name.
        nested = (
            f'{split}crop/{split}crop' if split == 'test' else (f'{split}crop')
        )
        folders(root / 'CRACK500', nested, nested)


def deepcrack(root):
    for split in ('train', 'test'):
        folders(root / 'DeepCrack', f'{split}_img', f'{split}_lab')


def steelcrack(root):
    for split in ('Train', 'Validation', 'Test'):
        for kind in ('masks', 'edges'):
            folders(
                root / 'Steelcrack',
                f'{split}/images',
                f'{split}/{kind}',
                suffix=('.png', '.png'),
            )


def crackmap(root):
    for i in range(20):
        name = f'GOPR0104 ({i}).png'
        draw(root / 'CrackMap/images' / name, root / 'CrackMap/masks' / name)


def crackseg9k_release(root):
    release = root / 'release'
    volumes = ('Final-Dataset-Vol1/Images', 'Final-Dataset-Vol2/Images-2')
    final = release / 'Final-Dataset-Vol1/Final_Masks'
    for i in range(6):
        name = f'{i}.png'
        draw(
            release / volumes[i % 2] / name, final / 'Masks' / name, soft=True
        )
    (final / 'train.txt').write_text('./0.png\n1.png\n2.png\n9.png\n')
    (final / 'test.txt').write_text('3.png\r\n4.png\r\n5.png\r\n')
    out = root / 'CrackSeg9k'
    assert crackseg9k.main([str(release), str(out)]) == 0


def gaps384(root):
    crack500(root)
    folders(root / 'GAPS384', 'croppedimg/croppedimg', 'croppedgt/croppedgt')


def cracktree206(root):
    crack500(root)
    folders(root / 'CrackTree206', 'cracktree200rgb', 'cracktree200_gt')


def amhaz(root, name, sensor, ending, extra=()):
    crack500(root)
    images, masks = (
        root / f'{x}/{sensor}' for x in ('IMAGES', 'GROUND_TRUTH')
    )
    for i in range(3):
        draw(
            images / f'Im_GT_{sensor}_{i}{ending}',
            masks / f'GT_{sensor}_{i}.png',
            black=True,
        )
    draw(images / f'Im_noGT_{sensor}_9{ending}', root / 'unused.png')
    args = [images, masks, root / name, '--img-prefix', 'Im_GT_', *extra]
    args += ['--mask-prefix', 'GT_', '--invert']
    assert pairs.main([str(x) for x in args]) == 0


def aiglern(root):
    extra = ('--img-suffix', 'or.png', 'or.jpg')
    amhaz(root, 'AigleRN', 'AIGLE_RN', 'or.png', extra)


def esar(root):
    amhaz(root, 'ESAR', 'ESAR', '.jpg')


def cracktree260(root):
    folders(root / 'CrackTree260', 'images', 'masks', suffix=('.JPG', '.bmp'))
    folders(root / 'CRKWH100', 'images', 'masks', suffix=('.png', '.bmp'))


def crackls315(root):
    cracktree260(root)
    folders(root / 'CrackLS315', 'images', 'masks', suffix=('.jpg', '.bmp'))


def stone331(root):
    cracktree260(root)
    source = root / 'source'
    folders(
        source, 'img', 'gt', suffix=('.jpg', '.bmp'),
        size=(80, 64), mask_size=(40, 32),
    )  # fmt: skip
    args = [source / 'img', source / 'gt', root / 'Stone331']
    assert pairs.main([*map(str, args), '--resize-images']) == 0


def folder(root):
    folders(root / 'my_cracks', 'img', 'gt', count=10)


def concat(root):
    crack500(root)
    deepcrack(root)
    crackmap(root)


BUILDERS = {
    name: globals().get(f'{name}_release') or globals()[name]
    for name in (
        'tut crack500 deepcrack steelcrack crackmap crackseg9k gaps384 '
        'cracktree206 aiglern esar cracktree260 crackls315 stone331 folder '
        'concat'
    ).split()
}


def test_every_data_set_is_built_here():
    shipped = {
        path.name.removesuffix('_448x448.py')
        for path in (CONFIGS / '_base_/datasets').glob('*_448x448.py')
    }
    assert shipped == {*BUILDERS, 'benchmark'}
    for name in BUILDERS.keys() - {'tut'}:
        assert (CONFIGS / f'crackssm/crackssm_{name}-448.py').is_file()


@pytest.mark.parametrize('name', BUILDERS)
def test_from_release_to_score(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    BUILDERS[name](tmp_path / 'data')
    kind = 'tut-448' if name == 'tut' else f'{name}-448'
    cfg = Config.fromfile(CONFIGS / f'crackssm/crackssm_{kind}.py')
    cfg.model = tiny_model()
    cfg.train_cfg.update(max_iters=1, val_interval=1)
    cfg.train_dataloader.batch_size = 2
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.num_workers, loader.persistent_workers = 0, False
    runner = train_model(cfg, work_dir=str(tmp_path / 'work'))
    scores = runner.test()
    assert 0 <= scores['crack/F1'] <= 1
    label = runner.test_loop.dataloader.dataset[0]['data_samples'].gt_sem_seg
    # The crack, and not the rest, wherever it was black or soft or large.
    assert label.data.shape[-2:] == (32, 40)
    assert (label.data == 1).sum() == 4 * 40
    if name == 'concat':
        for source in ('Crack500', 'DeepCrack', 'CrackMap'):
            assert f'crack/{source}/F1' in scores


@pytest.mark.parametrize(
    ('leaf', 'build', 'size', 'lr'),
    [
        ('crackssm_deepcrack-384', deepcrack, (384, 384), 9e-4),
        ('crackssm_steelcrack-512', steelcrack, (32, 40), 6e-3),
    ],
)
def test_recipes_of_crackmamba(tmp_path, monkeypatch, leaf, build, size, lr):
    monkeypatch.chdir(tmp_path)
    build(tmp_path / 'data')
    cfg = Config.fromfile(CONFIGS / f'crackssm/{leaf}.py')
    init_default_scope('mmseg')
    sample = DATASETS.build(cfg.train_dataloader.dataset)[0]
    assert tuple(sample['inputs'].shape[1:]) == size
    assert cfg.optim_wrapper.optimizer.lr == lr
    cfg.model = tiny_model()
    cfg.train_cfg.update(max_iters=1, val_interval=1)
    cfg.train_dataloader.batch_size = 2
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.num_workers, loader.persistent_workers = 0, False
    scores = train_model(cfg, work_dir=str(tmp_path / 'work')).test()
    assert {'crack/miIoU', 'crack/miDice', 'crack/ODS'} < set(scores)


def test_crackmap_split_is_7_1_2(tmp_path):
    crackmap(tmp_path)
    names = {
        split: [
            info['img_path']
            for info in datasets.CrackMapDataset(
                split=split, data_root=str(tmp_path / 'CrackMap')
            )
        ]
        for split in ('train', 'val', 'test')
    }
    assert [len(x) for x in names.values()] == [14, 2, 4]
    assert len({*sum(names.values(), [])}) == 20


RELEASES = [
    cls
    for cls in map(datasets.__dict__.get, datasets.__all__)
    if getattr(cls, 'DOWNLOAD', '')
]


@pytest.mark.parametrize('cls', RELEASES)
def test_missing_data_says_what_to_do(cls, tmp_path):
    assert len(RELEASES) >= 15
    split = next(iter(getattr(cls, 'SPLITS', {})), None)
    with pytest.raises(FileNotFoundError) as caught:
        cls(
            data_root=str(tmp_path / 'absent'),
            **({'split': split} if split else {}),
        )
    message = str(caught.value)
    assert 'Download' in message and 'absent' in message
    assert 'No conversion is needed' in message or 'Prepare it' in message


def test_crackseg9k_says_what_is_missing(tmp_path, capsys):
    (tmp_path / 'Final-Dataset-Vol2/Images-2').mkdir(parents=True)
    out = str(tmp_path / 'out')
    assert crackseg9k.main([str(tmp_path), out]) == 1
    assert 'Final_Masks/Masks' in capsys.readouterr().err
    crackseg9k_release(tmp_path / 'x')
    assert 'skipped 1 of train' in capsys.readouterr().out


def test_pairs_tells_of_bad_files(tmp_path, capsys):
    folders(tmp_path, 'img', 'gt', size=(80, 64), mask_size=(40, 32))
    args = [str(tmp_path / x) for x in ('img', 'gt', 'out')]
    assert pairs.main(args) == 1
    assert '--resize-images' in capsys.readouterr().out
    (tmp_path / 'img/000.a.jpg').write_bytes(b'')
    (tmp_path / 'img/lone.jpg').write_bytes(b'')
    assert pairs.main([*args, '--resize-images']) == 1
    out = capsys.readouterr().out
    assert 'wrote 2 pairs' in out and 'cannot be decoded' in out
    assert 'skipped 1 images without mask: lone' in out
    assert pairs.main([*args, '--img-prefix', 'x']) == 1
    assert '--img-prefix' in capsys.readouterr().err
    assert pairs.main([args[0], str(tmp_path / 'no'), args[2]]) == 1
    assert 'no is no folder' in capsys.readouterr().err


LAYOUTS = {
    'split first': '{split}/images {split}/masks',
    'kind first': 'img/{split} lab/{split}',
    'joined': '{split}_img {split}_gt',
}


@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=list(LAYOUTS))
def test_folder_layouts(tmp_path, layout):
    for count, split in enumerate(('train', 'valid', 'test'), start=1):
        folders(tmp_path, *layout.format(split=split).split(), count=count)
    for count, split in enumerate(('train', 'val', 'test'), start=1):
        dataset = datasets.CrackFolderDataset(
            data_root=str(tmp_path), split=split
        )
        assert len(dataset) == count


def test_folder_with_split_files(tmp_path):
    folders(tmp_path, 'images', 'labels', count=5)
    (tmp_path / 'train.txt').write_text('000.a\n003.a\n')
    (tmp_path / 'splits').mkdir()
    (tmp_path / 'splits/test.txt').write_text('004.a\n')
    lengths = [
        len(datasets.CrackFolderDataset(data_root=str(tmp_path), split=split))
        for split in ('train', 'val', 'test')
    ]
    assert lengths == [2, 1, 1]


def test_folder_without_split(tmp_path):
    folders(tmp_path, 'images', 'masks', count=20)
    parts = [
        {
            info['img_path']
            for info in datasets.CrackFolderDataset(
                data_root=str(tmp_path), split=split
            )
        }
        for split in ('train', 'val', 'test')
    ]
    assert [len(part) for part in parts] == [16, 2, 2]
    assert len(set.union(*parts)) == 20


@pytest.mark.parametrize('listed', ['train', 'val', 'test'])
def test_folder_with_one_split_file(tmp_path, listed):
    """What the file does not name is the rest, so that nothing leaks."""
    folders(tmp_path, 'images', 'masks', count=20)
    (tmp_path / f'{listed}.txt').write_text('001.a\n008.a\n009.a\n')
    sets = {
        split: {
            Path(info['img_path']).name[:3]
            for info in datasets.CrackFolderDataset(
                data_root=str(tmp_path), split=split
            )
        }
        for split in ('train', 'val', 'test')
    }
    assert sets[listed] == {'001', '008', '009'}
    assert len(sets['train'] | sets['val']) == 20
    assert not sets['train'] & sets['val']
    assert sets['val'] == sets['test']
    names = '\n'.join(f'{i:03}.a' for i in range(20))
    (tmp_path / f'{listed}.txt').write_text(names)
    other = 'val' if listed == 'train' else 'train'
    with pytest.raises(ValueError, match=f'no image is left for {other!r}'):
        datasets.CrackFolderDataset(data_root=str(tmp_path), split=other)


def test_folder_with_folders_of_one_split(tmp_path):
    folders(tmp_path, 'images/train', 'masks/train', count=20)
    assert len(datasets.CrackFolderDataset(data_root=str(tmp_path))) == 20
    with pytest.raises(FileNotFoundError, match="no such folders for 'val'"):
        datasets.CrackFolderDataset(data_root=str(tmp_path), split='val')


def test_folder_says_what_it_looked_for(tmp_path):
    folders(tmp_path, 'pictures', 'masks')
    with pytest.raises(FileNotFoundError, match='data_root=FOLDER'):
        datasets.CrackFolderDataset(data_root=str(tmp_path))
    folders(tmp_path, 'images', 'masks')
    with pytest.raises(ValueError, match='too few'):
        datasets.CrackFolderDataset(data_root=str(tmp_path), split='test')
    with pytest.raises(ValueError, match='split'):
        datasets.CrackFolderDataset(data_root=str(tmp_path), split='all')


def test_data_root_moves_all_data_sets(tmp_path):
    folders(tmp_path / 'mine', 'images', 'masks', count=10)
    cfg = load_config(
        'crackssm_folder-448', {'data_root': str(tmp_path / 'mine')}
    )
    init_default_scope('mmseg')
    lengths = [
        len(DATASETS.build(cfg[f'{split}_dataloader'].dataset))
        for split in ('train', 'val', 'test')
    ]
    assert lengths == [8, 1, 1]
