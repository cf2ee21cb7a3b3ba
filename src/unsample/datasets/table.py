"""The table of data sets. A row's facts are what `unsample datasets NAME` and docs/datasets.md show."""

from __future__ import annotations

from unsample.datasets.coco import open_coco
from unsample.datasets.folder import open_folder
from unsample.datasets.genai_bench import open_genai_bench
from unsample.datasets.listed import open_list
from unsample.datasets.pie_bench import open_pie_bench
from unsample.datasets.plain import open_plain
from unsample.datasets.rendered import open_generated, open_scenes
from unsample.datasets.spec import DatasetFacts
from unsample.datasets.tabled import open_parquet
from unsample.datasets.webdataset import open_webdataset

LIMIT = {"limit": "N: the first N items only"}
SPLIT = {"split": "report (tables), tune (to choose settings) or train"}
START = {"start": "N: the first seed within the split"}
OWN = "the pictures' own"

DATASETS: dict[str, DatasetFacts] = {
    "scenes": DatasetFacts(
        name="scenes",
        summary="rendered scenes of one object, with an edit of one attribute and its truth",
        opens=open_scenes,
        first="a count",
        takes_path=False,
        example="scenes:200,split=report",
        options={
            **SPLIT,
            **START,
            "edit": "colour, shape, background (these in turn by default), texture, size or place; several joined by +",
            "ground": "a colour: every scene on a plain background of it, white for example",
            "grain": "255ths of sensor noise",
            "ood": "scenes that no model trained on",
            **LIMIT,
        },
        flags=("ood",),
        has=("prompt", "target_prompt", "mask", "scene", "target", "changed", "truth"),
        layout="made on the spot, at any size; nothing is read",
        reference="built in: unsample.datasets.scenes",
        licence="that of this package: Apache-2.0",
    ),
    "generated": DatasetFacts(
        name="generated",
        summary="pictures that the model under test samples from known noise, of the captions of scenes",
        opens=open_generated,
        first="a count",
        takes_path=False,
        example="generated:128,split=report",
        options={
            **SPLIT,
            **START,
            "mixture": "the captions that scenes-mixture knows",
            "saved": "png, jpeg95 or jpeg75: as what the pictures are saved and read before they are inverted",
            **LIMIT,
        },
        flags=("mixture",),
        has=("prompt", "target_prompt", "changed", "seed"),
        layout="made by the model, from the seeds of the split; nothing is read",
        reference="built in: unsample.datasets.rendered",
        licence="that of the model",
    ),
    "folder": DatasetFacts(
        name="folder",
        summary="pictures in a folder, with prompts and masks from a table in it",
        opens=open_folder,
        first="a folder",
        takes_path=True,
        example="folder:/pictures",
        options=LIMIT,
        has=("prompt", "target_prompt", "mask"),
        layout="""\
pictures/
  cat.png                  PNG, JPEG, WEBP, BMP, TIFF, GIF, AVIF or JPEG 2000
  prompts.csv              optional; or .tsv, .jsonl, .parquet, or metadata.csv ... of Hugging Face's ImageFolder.
                           Columns: file (file_name), source_prompt (prompt, text, caption), target_prompt, mask
  masks/cat.png            of the picture's size; what is not black is to be edited""",
        reference="none",
        licence=OWN,
    ),
    "list": DatasetFacts(
        name="list",
        summary="pictures that a table names, with a prompt, a target prompt and a mask a row",
        opens=open_list,
        first="a .csv, .tsv, .jsonl or .parquet file",
        takes_path=True,
        example="list:/data/pictures.csv,images=/data",
        options={"images": "the folder below which the files lie; else the table's own", **LIMIT},
        has=("prompt", "target_prompt", "mask"),
        layout="""\
pictures.csv               columns: file (file_name), source_prompt (prompt, text, caption), target_prompt, mask
2024/cat.png               what the rows name, below the table's folder; a file with several rows is several items""",
        reference="none",
        licence=OWN,
    ),
    "parquet": DatasetFacts(
        name="parquet",
        summary="Parquet tables with a picture a row, as the Hugging Face hub keeps them",
        opens=open_parquet,
        first="a .parquet file, a folder of some, or a pattern",
        takes_path=True,
        example="parquet:/data/train-*.parquet",
        options=LIMIT,
        has=("prompt", "target_prompt", "mask"),
        layout="""\
train-00000-of-00010.parquet    columns: image (img, picture, or file: a path beside the table), id (key, name),
                                source_prompt (prompt, text, caption), target_prompt, mask
                                a picture is a struct {bytes, path}, bytes alone, or a path""",
        reference="none",
        licence=OWN,
    ),
    "webdataset": DatasetFacts(
        name="webdataset",
        summary="tar files in which the members of a sample have one name, as WebDataset writes them",
        opens=open_webdataset,
        first="a .tar file, a folder of some, or a pattern",
        takes_path=True,
        example="webdataset:/data/part-*.tar",
        options=LIMIT,
        has=("prompt", "target_prompt", "mask"),
        layout="""\
part-00000.tar
  0007.jpg                 PNG, JPEG, WEBP, BMP, TIFF, GIF, AVIF or JPEG 2000
  0007.txt                 what it shows (or .caption, .text, .prompt; or 0007.json with source_prompt, prompt, text
                           or caption, and target_prompt)
  0007.target.txt          what an edit shall show
  0007.mask.png            what is not black is to be edited""",
        reference="github.com/webdataset/webdataset",
        licence=OWN,
    ),
    "pie_bench": DatasetFacts(
        name="pie_bench",
        summary="700 pictures with prompts before and after an edit, masks and ten types of edit",
        opens=open_pie_bench,
        first="a folder",
        takes_path=True,
        example="pie_bench:/data/PIE-Bench,category=0+3",
        options={"category": "numbers 0 to 9 or names, joined by +", **LIMIT},
        has=("prompt", "target_prompt", "mask", "category"),
        layout="""\
PIE-Bench/                 the authors' edition
  mapping_file.json        id to image_path, original_prompt, editing_prompt, editing_instruction, editing_type_id,
                           blended_word, mask
  annotation_images/0_random_140/000000000000.jpg
PIE_Bench_pp/              or the parquet edition; columns id, image, source_prompt, target_prompt, mask, edit_action,
  0_random_140/V1-00000-of-00001.parquet                    blended_words""",
        reference="Ju et al., 2023, arXiv:2310.01506; PIE-Bench++: Huang et al., 2024, arXiv:2406.00985",
        licence="parquet edition: CC BY-SA 4.0, by its card; the authors' edition is asked for by a form",
    ),
    "genai_bench": DatasetFacts(
        name="genai_bench",
        summary="edits of pictures by pairs of models, with human votes: the image edition",
        opens=open_genai_bench,
        first="a folder, a .parquet file or a hub id",
        takes_path=True,
        example="genai_bench:/data/GenAI-Bench,split=test_v1",
        options={"split": "where there are several", "config": "image_edition by default", **LIMIT},
        has=("prompt", "target_prompt", "extra"),
        layout="""\
GenAI-Bench/
  image_edition/test_v1-00000-of-00001.parquet
columns (or their kin): source_prompt, target_prompt, instruct_prompt, source_image, left_model, left_output_image,
right_model, right_output_image, vote_type""",
        reference="Jiang et al., 2024, arXiv:2406.04485",
        licence="CC BY 4.0, by its card",
    ),
    "coco": DatasetFacts(
        name="coco",
        summary="photographs with captions; the first caption is the prompt",
        opens=open_coco,
        first="a captions file",
        takes_path=True,
        example="coco:/coco/annotations/captions_val2017.json,images=/coco/val2017",
        options={"images": "the folder of the pictures", **LIMIT},
        has=("prompt",),
        layout="""\
coco/
  annotations/captions_val2017.json    images (id, file_name) and annotations (id, image_id, caption)
  val2017/000000000139.jpg""",
        reference="Lin et al., 2014, arXiv:1405.0312; Chen et al., 2015, arXiv:1504.00325",
        licence="annotations CC BY 4.0; the pictures are Flickr's, each under its own",
    ),
    "celeba": DatasetFacts(
        name="celeba",
        summary="faces, without prompts",
        opens=open_plain,
        first="a folder",
        takes_path=True,
        example="celeba:/data/img_align_celeba,limit=1000",
        options=LIMIT,
        has=(),
        layout="""\
img_align_celeba/
  000001.jpg               pictures at any depth; partitions and attributes are not read""",
        reference="Liu et al., 2015, arXiv:1411.7766; CelebA-HQ: Karras et al., 2018, arXiv:1710.10196",
        licence="non-commercial research, by its authors",
    ),
    "lsun": DatasetFacts(
        name="lsun",
        summary="scenes and objects, without prompts",
        opens=open_plain,
        first="a folder",
        takes_path=True,
        example="lsun:/data/church_outdoor_val,limit=1000",
        options=LIMIT,
        has=(),
        layout="""\
church_outdoor_val/
  0/1/a3f09c.webp          pictures at any depth, as exported; the LMDB that is handed out is not read""",
        reference="Yu et al., 2015, arXiv:1506.03365",
        licence="not stated by its authors",
    ),
}
