"""Where the kernels of a contextual network sample, and how contexts and kernels differ between images."""

import jax.numpy as jnp
import numpy as np
import rich.table

from ctx_flax.analysis import context_figures, figures, offset_figures, records
from ctx_flax.analysis.all_images import over_images
from ctx_flax.analysis.images import Subset, chosen_images
from ctx_flax.analysis.principal_components import all_same, distances_by_class, principal_components
from ctx_flax.analysis.run import check_task, open_run
from ctx_flax.analysis.sampling_points import blocks_of, mean_offsets, middle_frame, position_of, sampling_of
from ctx_flax.files import printable
from ctx_flax.models.network import stages_of
from ctx_flax.terminal import console
from ctx_flax.training.halt import bad_data, bad_input, failed_report

LEAST = 4  # positions a side of a map that is worth looking at


def offsets(config, workdir):
  """Writes offsets.{json,npz} and figures of points, fields, contexts and kernel deltas of a contextual run.

  Of clips they are those of the middle frame.

  Args:
    config: its config; offsets.{images, indices, block, position, sample}.
    workdir: its folder.

  Returns:
    What `write` returns.

  Raises:
    Halt: the input is wrong or the network plain (status 2); the result could not be written (1).
  """
  with bad_input():
    check_task(config)
    check_settings(config.offsets)
    run = open_run(config, workdir)
    if not run.model.contextual:
      raise ValueError(f'{workdir} is a run of {config.model.name}: a plain network has no offsets')
    if not run.model.adapts:
      raise ValueError(f'{workdir} has no contextual convolutions: model.ablate is {run.model.ablate}')
    images = chosen_images(run, config.offsets.images, config.offsets.indices, 'offsets')
    chosen_block(run, images)
  with bad_data():
    return write(run, images)


def check_settings(options):
  """Raises ValueError for a field of config.offsets that has no meaning."""
  position = options.position
  if position and (len(position) != 2 or not all(0 <= value <= 1 for value in position)):
    raise ValueError(f'offsets.position is {position!r}: it must be (y, x), fractions 0..1 of the sides')
  if options.sample < 2:
    raise ValueError(f'offsets.sample must be 2 or more, but is {options.sample}')


def chosen_block(run, images):
  """(out of the images, the block that offsets.block names); ValueError for an unknown one."""
  _, out = run.apply(run.variables, images.arrays)
  out = middle_frame(out, run.model.segments)
  known = blocks_of(out)
  large = [name for name in known if min(out['offsets'][name].shape[1:3]) >= LEAST]
  block = run.config.offsets.block or (large[-1] if large else known[0])
  if block not in known:
    raise ValueError(f'offsets.block is {block!r}: the contextual blocks are {", ".join(known)}')
  return out, block


def write(run, images=None):
  """Computes, draws, writes and prints what `offsets` promises, of an open contextual run.

  Returns:
    {'sampling': a Sampling of the chosen block and images, 'fields': {stage: mean offsets (b, u, v, 2) in
    image pixels}, 'blocks': {block: numbers}, 'contexts': {stage: {'coordinates' (m, 2), 'shares' (2,),
    'same_considered': bool}}, 'kernel_deltas': the same with the distances, 'labels': (m,), 'files': {name:
    path without suffix}}.
  """
  options, side = run.config.offsets, run.config.data.image_size
  if images is None:
    images = chosen_images(run, options.images, options.indices, 'offsets')
  out, block = chosen_block(run, images)
  samplings = {name: sampling_of(run.model, out, name, side) for name in blocks_of(out)}
  sampling = samplings[block]
  position = position_of(options.position or (0.5, 0.5), sampling)
  # The first contextual block of a stage stands for it: each has offsets of its own.
  first: dict[int, str] = {}
  for name in samplings:
    first.setdefault(int(name.split('.')[0]), name)
  fields = {stage: mean_offsets(samplings[name]) for stage, name in first.items()}
  contexts, kernels, labels = maps_of_sample(sample_of(run, block), block)
  names = run.class_names
  drawn = {
    'offsets_points': offset_figures.points(images, sampling, position, names, run.model.mask_gain),
    'offsets_fields': offset_figures.fields(images, fields, first, samplings, names),
    'offsets_contexts': context_figures.contexts(contexts, labels, names),
    'offsets_kernel_deltas': context_figures.kernel_deltas(kernels, labels, names, block),
  }
  found = {
    'sampling': sampling,
    'fields': fields,
    'blocks': {name: numbers_of(one) for name, one in samplings.items()},
    'contexts': contexts,
    'kernel_deltas': kernels,
    'labels': labels,
    'files': {name: run.folder / name for name in drawn},
  }
  path = run.folder / 'offsets'
  with failed_report(path):
    for name, figure in drawn.items():
      figures.save(figure, found['files'][name])
    _save(found, path, {'run': run.title, 'block': block, 'position': position, 'images': images.names})
  _print(found['blocks'], kernels, block)
  shown = printable(path)
  print(f'{shown}.json, .npz, {shown}_*.png, .svg', flush=True)
  return found


def _save(found, path, about):
  """Writes what `write` returns as numbers, behind what is known `about` them, and as arrays."""
  contexts, kernels, sampling = found['contexts'], found['kernel_deltas'], found['sampling']
  numbers = {
    **about,
    'blocks': found['blocks'],
    'contexts': {stage: one['shares'] for stage, one in contexts.items()},
    'kernel_deltas': {name: value for name, value in kernels.items() if name != 'coordinates'},
    'sample': len(found['labels']),
  }
  records.save_json(numbers, path.with_suffix('.json'))
  arrays = {f'field{stage}': value for stage, value in found['fields'].items()}
  arrays |= {f'context{stage}': one['coordinates'] for stage, one in contexts.items()}
  np.savez(
    path.with_suffix('.npz'),
    points=sampling.points,
    regular=sampling.regular,
    mask=sampling.mask,
    kernel_delta=kernels['coordinates'],
    label=found['labels'],
    **arrays,
  )


def maps_of_sample(sample, block):
  """(contexts, kernel_deltas, labels), as `write` returns them, of what `sample_of` returned."""
  stages = sorted(int(name.removeprefix('context')) for name in sample if name.startswith('context'))
  contexts = {
    stage: components(sample[f'context{stage}']) | {'same_considered': all_same(sample[f'considered{stage}'])}
    for stage in stages
  }
  kernels = components(sample['kernel_delta'])
  considered = sample[f'considered{block.split(".")[0]}']
  kernels |= distances_by_class(sample['kernel_delta'], sample['label'], considered)
  return contexts, kernels, sample['label']


def sample_of(run, block):
  """Contexts, considered classes and kernel deltas of a block, of images spread over the test set."""

  def taken(out, _):
    out = middle_frame(out, run.model.segments)
    delta = out['kernel_delta'][block]
    found = {
      f'{what}{s}': out[f'{what}{s}'] for what in ('context', 'considered') for s in stages_of(out)[1:]
    }
    found['kernel_delta'] = delta.reshape(len(delta), -1)
    return {
      name: value if value.dtype == bool else value.astype(jnp.float32) for name, value in found.items()
    }

  # Spread over the set: the images of a folder are sorted by class.
  size = min(run.config.offsets.sample, len(run.source))
  spread = Subset(run.source, np.linspace(0, len(run.source) - 1, size).astype(int).tolist())
  return over_images(run, taken, 'contexts', spread)


def components(vectors):
  """{'coordinates' (m, 2), 'shares' (2,)} of `principal_components`."""
  coordinates, shares = principal_components(vectors)
  return {'coordinates': coordinates, 'shares': shares}


def numbers_of(sampling):
  """What a block does on the average: in pixels of its input, of the image, and the mask."""
  length = np.linalg.norm(sampling.points - sampling.regular[None], axis=-1)
  return {
    'mean_offset_input_pixels': float(length.mean() / sampling.scale),
    'mean_offset_image_pixels': float(length.mean()),
    'largest_offset_image_pixels': float(length.max()),
    'mean_mask': float(sampling.mask.mean()),
    'mask_deviation': float(sampling.mask.std()),
  }


def _print(blocks, kernels, block):
  table = rich.table.Table(title='Offsets of the chosen images')
  for column in ('block', 'mean, input px', 'mean, image px', 'largest, image px', 'mean mask'):
    table.add_column(column, justify='right')
  for name, numbers in blocks.items():
    values = [
      numbers[f'{what}_pixels'] for what in ('mean_offset_input', 'mean_offset_image', 'largest_offset_image')
    ]
    table.add_row(name, *(f'{value:.2f}' for value in values), f'{numbers["mean_mask"]:.3f}')
  console().print(table)
  print(f'kernel deltas of block {block}: {context_figures.distances_in_words(kernels)}')
