"""Options of the modes that look at detectors, a group each: some fields of detection, and their rules."""

import ml_collections

from ctx_flax.configs.kinds import Choice, Number, Rule, Text, Tuple, Whole


def add_fields(config: ml_collections.ConfigDict) -> None:
  """Adds the groups: predict, failures, report, export."""
  for add_group in (_add_predict, _add_failures, _add_report, _add_export):
    add_group(config)


def _add_predict(config):
  config.predict = predict = ml_collections.ConfigDict()  # --mode=predict
  predict.images = ''  # files, folders and globs, separated by commas
  predict.list = ''  # file with a file name in each line, or separated by NUL bytes
  predict.format = 'table'  # or 'jsonl', 'coco'
  predict.output = ''  # file that is written; '' = standard output
  predict.pictures = ''  # folder of PNG files, each image with its objects; '' = none
  # Least score of an object in jsonl and coco; model.score_threshold leaves out more.
  predict.score = 0.0
  predict.shown_score = 0.3  # the same in tables and pictures


def _add_failures(config):
  config.failures = failures = ml_collections.ConfigDict()  # --mode=failures
  failures.images = 24  # most confident false detections, and missed objects, in the galleries and tables
  failures.pairs = 15  # most frequent confusions
  failures.score = 0.5  # least score of detections that count, but for the galleries and curves
  failures.overlap = 0.5  # IoU from which a detection is of an object
  failures.kind = 'mask'  # whose IoU; or 'box'


def _add_report(config):
  config.report = report = ml_collections.ConfigDict()  # --mode=report
  report.beside = ''  # folder of a second run, compared with this one
  report.images = 4  # test images that are shown with their detections


def _add_export(config):
  config.export = export = ml_collections.ConfigDict()  # --mode=export
  export.canvas = ()  # (h, w) of the images that it takes, multiples of 32; () = the largest of data.canvases
  export.batch_size = 1  # images of a call


SCORE = Number(0, 1, text='a score, 0 to 1')
RULES: dict[str, Rule] = {
  'predict.images': Text(),
  'predict.list': Text(),
  'predict.format': Choice(('table', 'jsonl', 'coco')),
  'predict.output': Text(),
  'predict.pictures': Text(),
  'predict.score': SCORE,
  'predict.shown_score': SCORE,
  'failures.images': Whole(1, 10_000),  # all in one figure
  'failures.pairs': Whole(1),
  'failures.score': SCORE,
  'failures.overlap': Number(0, 1, above=True, text='an IoU, above 0 and at most 1'),
  'failures.kind': Choice(('mask', 'box')),
  'report.beside': Text(),
  'report.images': Whole(1, 10_000),
  'export.canvas': Tuple(Whole(1, 8192), 'must be (height, width), 1 to 8192, or ()', (0, 2)),
  'export.batch_size': Whole(1, 65_536),
}
