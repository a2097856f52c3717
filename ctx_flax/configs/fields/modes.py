"""Options of the modes that look at classifiers of images, a group each, and their rules."""

import ml_collections

from ctx_flax.configs.kinds import Choice, Number, Scalar, Text, Tuple, Whole


def add_fields(config: ml_collections.ConfigDict) -> None:
  """Adds the groups: probe, recall, sweep, predict, grad_cam, failures, offsets, context, report."""
  for add_group in (
    _add_probe,
    _add_recall,
    _add_sweep,
    _add_predict,
    _add_grad_cam,
    _add_failures,
    _add_offsets,
    _add_context,
    _add_report,
  ):
    add_group(config)


def _add_probe(config):
  config.probe = probe = ml_collections.ConfigDict()  # --mode=linear_probe
  probe.weights = ''  # of the contextual network, as init.weights
  probe.plain_weights = ''  # of the plain one; either may be '' = left out
  probe.plain_model = 'resnet50'  # its name, where PyTorch weights do not tell it
  probe.iterations = 3000  # optimizer steps of a head
  probe.batch_size = 512  # features of a step
  probe.learning_rate = 1e-3  # of AdamW, constant
  probe.weight_decay = 1e-5  # decoupled, times the learning rate
  probe.seeds = 3  # so many heads are trained, seed, seed + 1, ...; the report has mean and deviation
  probe.cache = '~/.cache/ctx_flax/features'  # folder of extracted features, by weights, images and transform


def _add_recall(config):
  config.recall = recall = ml_collections.ConfigDict()  # --mode=recall_curves
  recall.target = 0.99  # relative recall of the true class that the class counts must reach
  recall.relative_to = 'all'  # or 'kept' (before the stage): which counts the table by class is made with


def _add_sweep(config):
  config.sweep = sweep = ml_collections.ConfigDict()  # --mode=alpha_sweep
  sweep.field = 'loss.alpha'  # the field of this config that takes other values
  sweep.over = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)  # these, a run each
  sweep.seeds = 1  # runs of every value, with seed, seed + 1, ...


def _add_predict(config):
  config.predict = predict = ml_collections.ConfigDict()  # --mode=predict
  predict.images = ''  # files, folders and globs, separated by commas
  predict.list = ''  # file with a file name in each line, or separated by NUL bytes
  predict.top = 5  # classes shown of every stage
  predict.format = 'table'  # or 'jsonl', 'csv'
  predict.output = ''  # file that is written; '' = standard output
  predict.pictures = ''  # folder of PNG and SVG files, the class funnel of each image; '' = none


def _add_grad_cam(config):
  config.grad_cam = grad_cam = ml_collections.ConfigDict()  # --mode=grad_cam
  grad_cam.images = ''  # as predict.images; '' = test images
  grad_cam.indices = (0, 1, 2, 3)  # which of the test images, by number
  grad_cam.classes = ()  # names of the classes that are explained; () = the true one and its strongest rival
  grad_cam.stage = 0  # whose features are weighted, 1 to 4; 0 = the last with a map of at least 4 x 4
  grad_cam.method = 'grad_cam'  # or 'hirescam', 'grad_cam++'
  grad_cam.plain = ''  # folder of a second run, shown beside this one
  grad_cam.steps = 24  # equal parts of the pixels in deletion and insertion; 0 = no curves


def _add_failures(config):
  config.failures = failures = ml_collections.ConfigDict()  # --mode=failures
  failures.images = 24  # most confident mistakes in the gallery and the table
  failures.pairs = 15  # most frequent confusions
  failures.bins = 15  # of the reliability diagram


def _add_offsets(config):
  config.offsets = offsets = ml_collections.ConfigDict()  # --mode=offsets
  offsets.images = ''  # as predict.images; '' = test images
  offsets.indices = (0, 1, 2, 3)  # which of the test images, by number
  offsets.block = ''  # contextual block, 'stage.block' such as '3.0'; '' = the last with 4 x 4 positions
  offsets.position = ()  # (y, x) of the kernel, as fractions of the image's sides; () = the centre
  offsets.sample = 500  # test images in the maps of contexts and kernel deltas


def _add_context(config):
  config.context = context = ml_collections.ConfigDict()  # --mode=context
  context.resamples = 1000  # times that the test images are drawn anew, for the intervals
  context.seed = 0  # of these draws, of the other images and of the random classes
  context.classes = 5  # printed of those that gain most and least by their own contexts


def _add_report(config):
  config.report = report = ml_collections.ConfigDict()  # --mode=report
  report.beside = ''  # folder of a second run, compared with this one
  report.images = 4  # test images that are explained


IMAGES = Tuple(Whole(0), 'must hold numbers of test images, 0 or more')
RULES = {
  'probe.weights': Text(),
  'probe.plain_weights': Text(),
  'probe.plain_model': Text(),
  'probe.iterations': Whole(1),
  'probe.batch_size': Whole(1, 2**24),
  'probe.learning_rate': Number(0),
  'probe.weight_decay': Number(0),
  'probe.seeds': Whole(1, 1000),
  'probe.cache': Text(),
  'recall.target': Number(0, 1, above=True, text='above 0 and at most 1'),
  'recall.relative_to': Choice(('all', 'kept')),
  'sweep.field': Text(),  # its room knows which fields change what is learned
  'sweep.over': Tuple(Scalar(tuples=True), 'must hold values of sweep.field'),
  'sweep.seeds': Whole(1, 1000),
  'predict.images': Text(),
  'predict.list': Text(),
  'predict.top': Whole(1),
  'predict.format': Choice(('table', 'jsonl', 'csv')),
  'predict.output': Text(),
  'predict.pictures': Text(),
  'grad_cam.images': Text(),
  'grad_cam.indices': IMAGES,
  'grad_cam.classes': Tuple(Scalar(), 'must hold names or numbers of classes'),
  'grad_cam.stage': Whole(0),  # how many there are depends on the network
  'grad_cam.method': Choice(('grad_cam', 'hirescam', 'grad_cam++')),
  'grad_cam.plain': Text(),
  'grad_cam.steps': Whole(0, 10_000, '0 (no curves) or more, and at most 10000'),  # a forward pass each
  'failures.images': Whole(1, 10_000),  # all in one figure
  'failures.pairs': Whole(1),
  'failures.bins': Whole(1, 10_000),
  'offsets.images': Text(),
  'offsets.indices': IMAGES,
  'offsets.block': Text(),  # which there are depends on the network
  'offsets.position': Tuple(Number(0, 1), 'must be (y, x), fractions 0 to 1 of the sides, or ()', (0, 2)),
  'offsets.sample': Whole(2),
  'context.resamples': Whole(2, 1_000_000),
  'context.seed': Whole(0, 2**32 - 1, 'between 0 and 2**32 - 1'),
  'context.classes': Whole(1),
  'report.beside': Text(),
  'report.images': Whole(1, 10_000),
}
