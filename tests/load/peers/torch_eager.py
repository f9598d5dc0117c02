"""FastAPI, uvicorn, PyTorch in eager mode, Pillow: what most projects of this kind serve with."""

from __future__ import annotations

import torch
import uvicorn
from fastapi import FastAPI, UploadFile

from tests.load.peers import common
from training.evaluate import CALIBRATION_FILE, Calibration, Trained
from training.preprocess import load

app = FastAPI()
trained = Trained.load()
temperature = Calibration.load(CALIBRATION_FILE).temperature


@app.post("/predict")
def predict(image: UploadFile) -> dict[str, list[float]]:
    picture = torch.from_numpy(load(image.file.read(), trained.preprocessing).copy())
    with torch.inference_mode():
        logits = trained.model(picture.permute(2, 0, 1)[None])
    return common.answer(torch.softmax(logits[0] / temperature, 0))


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=common.PORT, access_log=False)
