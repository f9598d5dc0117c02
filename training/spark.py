"""Score pictures on Spark with the registered model, when one machine is not enough.

    pip install 'pyspark>=4,<5'                              (and Java 17; not in the locks)
    python -m training.spark FOLDER --out scores             on all cores of this machine
    PYSPARK_SUBMIT_ARGS='--master spark://HOST:7077 pyspark-shell' python -m training.spark s3a://B/IN --out s3a://B/OUT

FOLDER and --out are whatever Spark reads and writes. The result is Parquet with one row per file: path, label and one
probability per class; a rejected picture has only its path. The workers need the packages listed in the model's
requirements.txt, and access to registry and storage.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from training import params
from training.common.command import run_command
from training.common.errors import ExpectedError
from training.model.tracking import ALIAS
from training.registry import moved
from training.registry.mlflow_store import tracking_uri

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

PICTURES = "*.{jpg,jpeg,jfif,png,webp,gif,bmp,tif,tiff,JPG,JPEG,PNG}"
ROWS = 64  # pictures that a worker holds at once: whole files, so far fewer than Spark's 10,000


class SparkError(ExpectedError):
    """Spark cannot do this; the message says why."""


def scores(spark: SparkSession, folder: str, model_uri: str) -> DataFrame:
    """Path and answer for every picture under `folder`; nothing is computed before it is asked for."""
    import mlflow
    from pyspark.sql.functions import col, struct, when

    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", ROWS)
    answer = mlflow.pyfunc.spark_udf(spark, model_uri, env_manager="local", params={"skip_refused": True})
    files = spark.read.format("binaryFile").option("recursiveFileLookup", True).option("pathGlobFilter", PICTURES)
    pictures = files.load(folder).select("path", answer(struct(col("content").alias("image"))).alias("answer"))
    answers = pictures.select("path", "answer.*")
    # Of a picture that the model refuses, MLflow makes nulls of the probabilities and the text "None" of the label.
    _, *names = answers.columns
    columns = {name: col(f"`{name.replace('`', '``')}`") for name in names}  # a class may hold a dot
    given = columns[names[-1]].isNotNull()
    return answers.select("path", *(when(given, column).alias(name) for name, column in columns.items()))


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m training.spark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="the pictures, at whatever depth")
    parser.add_argument("--out", required=True, help="a folder that is not there yet")
    parser.add_argument("--model", help="an MLflow model (default: the champion)")
    arguments = parser.parse_args()
    try:
        from pyspark.errors import AnalysisException
        from pyspark.sql import SparkSession
    except ImportError:
        raise SparkError("PySpark is not installed: pip install 'pyspark>=4,<5'") from None
    import mlflow

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    moved.tell(tracking_uri())
    mlflow.set_tracking_uri(tracking_uri())
    model = arguments.model or f"models:/{params.load().register_.name}@{ALIAS}"
    spark = SparkSession.builder.appName("training.spark").getOrCreate()
    try:
        scores(spark, arguments.folder, model).write.parquet(arguments.out)
    except AnalysisException as error:
        raise SparkError(str(error).splitlines()[0]) from None
    finally:
        spark.stop()
    print(f"scored by {model}: {arguments.out}")


if __name__ == "__main__":
    run_command(main)
